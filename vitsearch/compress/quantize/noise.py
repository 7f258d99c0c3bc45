"""NoisyQuant (Liu et al. 2023): a fixed noise before an activation is quantised, subtracted after.

The rule, for the input X of a linear layer with weights W, bias b and any quantiser Q::

    f(X) = W (Q(X + n) - n) + b = W Q(X + n) + (b - W n),   n_d = nu * u_d,   u_d uniform in [-1, 1], drawn once

so the subtraction costs nothing: it is folded into the bias. Of nu = 0, 1/8, ..., 1 steps of Q the one with the
least squared error of the layer's output is taken; 0 is among them, so noise never does harm on the calibration
images. The noise has one value per input channel and comes from a fixed seed: nothing but nu need be stored with
the model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vitsearch.compress.quantize.layers import QuantizedProjection

SHARES = tuple(i / 8 for i in range(9))


def pattern(width: int, number: int) -> Tensor:
    """The u (width,) of a network's noisy layer of that number, uniform in [-1, 1]."""
    return torch.rand(width, generator=torch.Generator().manual_seed(number)) * 2 - 1


def noisy_projections(modules: list[QuantizedProjection]) -> list[QuantizedProjection]:
    """The layers with noise."""
    return [one for one in modules if one.input_quantizer.noise_D is not None]


@torch.no_grad()
def remove_noise(projection: QuantizedProjection) -> None:
    """Take the noise out of input and bias."""
    quantizer, layer = projection.input_quantizer, projection.layer
    assert quantizer.noise_D is not None
    assert layer.bias is not None
    layer.bias.add_(layer.weight @ quantizer.noise_D)
    quantizer.noise_D.zero_()


@torch.no_grad()
def set_noise(projection: QuantizedProjection, number: int, x_RI: Tensor, exact_RO: Tensor) -> None:
    """Choose the range of a layer's noise, and fold its subtraction into the bias.

    Args:
        projection: A calibrated layer without noise.
        number: Its number among the noisy layers.
        x_RI: Inputs.
        exact_RO: What the layer made of them before anything was quantised.
    """
    quantizer, layer = projection.input_quantizer, projection.layer
    assert quantizer.noise_D is not None
    assert layer.bias is not None
    step = quantizer.codes.step(quantizer.theta, quantizer.bits)
    noises = [share * step * pattern(x_RI.shape[1], number).to(x_RI) for share in SHARES]
    errors = [
        (layer(quantizer.codes.quantize(x_RI + n_D, quantizer.theta, quantizer.bits) - n_D) - exact_RO)
        .square()
        .mean()
        for n_D in noises
    ]
    n_D = noises[int(torch.stack(errors).argmin())]
    quantizer.noise_D.copy_(n_D)
    layer.bias.sub_(layer.weight @ n_D)
