"""Training through quantisers (quantisation-aware training).

A calibrated network gets its unquantised weights back; from then on each forward pass rounds weights and
activations to their codes, and gradients pass as ``straight_through`` says: in the calibrated ranges under
``ste``, with the steps learned from there under ``lsq``. The loss is the recipe's, so a teacher teaches here too.
Afterwards weights are stored quantised, ranges where calibration stores them: nothing of the training is left in
the network.

Weights that a mask (a buffer ``weight_mask`` beside a layer's ``weight``) has removed stay exactly zero, so that
2:4 pruning, then training through quantisers under a teacher, is one candidate (GPUSQ-ViT, Yu et al. 2023).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from vitsearch.compress.quantize.apply import round_beside_half_weights
from vitsearch.compress.quantize.codes import Codes, ScaledByWeights
from vitsearch.compress.quantize.layers import (
    ActivationQuantizer,
    QuantizedProjection,
    covering_channels,
    masked,
    quantized_weight,
)
from vitsearch.compress.quantize.straight_through import fake_quantize, scaled
from vitsearch.compress.weights.context import Trainer
from vitsearch.models import VisionTransformer


class WeightRounding(nn.Module):
    """Maps a layer's trained weights to those it computes with.

    Args:
        layer: The layer.
        bits: Code width.
        codes: The rule.
        theta: Calibrated ranges (P, C).
        learned: Whether their steps are learned.
    """

    def __init__(self, layer: nn.Module, bits: int, codes: Codes, theta: Tensor, *, learned: bool) -> None:
        super().__init__()
        self.bits, self.codes, self.theta = bits, codes, theta
        self.mask = masked(layer)
        measures = isinstance(codes, ScaledByWeights) and codes.follows_training and codes.measures(bits)
        self.measures_anew = measures and not learned
        is_learned = learned and codes.scales and bits < 16
        self.log_step = nn.Parameter(torch.zeros_like(theta[0])) if is_learned else None

    def forward(self, weight: Tensor) -> Tensor:
        """Quantised weights; under ``ste`` ternary and binary codes measure weights anew."""
        if self.bits >= 16:
            rounded = quantized_weight(weight, self.bits, self.codes)
        elif self.measures_anew:
            theta = covering_channels(weight, self.bits, self.codes)
            rounded = fake_quantize(weight, theta, self.bits, self.codes, clips=False)
        else:
            rounded = fake_quantize(weight, self.theta, self.bits, self.codes, self.log_step)
        return rounded if self.mask is None else rounded * self.mask


def train_quantised(model: VisionTransformer, train: Trainer, epochs: int) -> None:
    """Train a calibrated network in place through its quantisers, as its precision says.

    Args:
        model: The network.
        train: Trains by the trial's recipe.
        epochs: Epochs; at 0 the network stays as it is.
    """
    projections = [module for module in model.modules() if isinstance(module, QuantizedProjection)]
    if not epochs or not projections or projections[0].precision.training == "none":
        return
    with _trainable(model, projections, learned=projections[0].precision.training == "lsq"):
        train(model, epochs)
    model.eval()
    round_beside_half_weights(model, projections[0].precision.weight_bits_per_block(model.architecture.depth))


@contextmanager
def _trainable(model: nn.Module, projections: list[QuantizedProjection], *, learned: bool) -> Iterator[None]:
    quantizers = [module for module in model.modules() if isinstance(module, ActivationQuantizer)]
    with torch.no_grad():
        for projection in projections:
            _loosen(projection, learned=learned)
        for quantizer in quantizers:
            if learned and quantizer.has_codes and quantizer.codes.scales:
                quantizer.log_step = nn.Parameter(torch.zeros_like(quantizer.theta[0]))
    try:
        yield
    finally:
        with torch.no_grad():
            for quantizer in quantizers:
                if quantizer.log_step is not None:
                    quantizer.settle(scaled(quantizer.theta, quantizer.log_step))
                    quantizer.log_step = None
            for projection in projections:
                _fix(projection)


def _loosen(projection: QuantizedProjection, *, learned: bool) -> None:
    """Trained weights again, the noise's part out of the bias."""
    layer, quantizer = projection.layer, projection.input_quantizer
    if quantizer.noise_D is not None:
        assert layer.bias is not None
        layer.bias.add_(layer.weight @ quantizer.noise_D)
        quantizer.subtracts_noise = True
    if projection.weight_bits == 32 and masked(layer) is None:
        return
    assert projection.before is not None, "calibrate first"
    weight, theta = projection.before
    layer.weight.copy_(weight)
    projection.before = None
    rounding = WeightRounding(layer, projection.weight_bits, projection.codes, theta, learned=learned)
    parametrize.register_parametrization(layer, "weight", rounding)


def _fix(projection: QuantizedProjection) -> None:
    """Quantised weights for good, the noise's part into the bias."""
    layer, quantizer = projection.layer, projection.input_quantizer
    if parametrize.is_parametrized(layer, "weight"):
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    if quantizer.noise_D is not None:
        assert layer.bias is not None
        layer.bias.sub_(layer.weight @ quantizer.noise_D)
        quantizer.subtracts_noise = False
