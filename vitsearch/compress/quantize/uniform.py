"""Uniform symmetric quantisation, simulated: values are rounded to k-bit codes and back.

The rule (survey Eq. 5)::

    Q(x) = Delta * clamp(round(x / Delta), -2^(k-1), 2^(k-1) - 1)

Weights have one Delta per output channel, activations one per tensor.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MSE_VALUES = 16_384


def quantize(x: Tensor, delta: Tensor, bits: int) -> Tensor:
    """Round ``x`` to ``bits``-bit codes and back.

    Args:
        x: Values of any shape.
        delta: Step, broadcastable to ``x``; positive.
        bits: 1 to 8. At one bit the codes are -1 and 0, as Eq. 5 has it: positive values are lost, but the result
            is bounded by Delta and never further from ``x`` than zero is.
    """
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return (x / delta).round().clamp(low, high) * delta


def delta_of_range(max_abs: Tensor, bits: int) -> Tensor:
    """The step that puts the largest magnitude on the last positive code; at one bit on the code -1."""
    return max_abs.clamp_min(torch.finfo(torch.float32).tiny * 2**16) / max(1, 2 ** (bits - 1) - 1)


def channel_delta(weight: Tensor, bits: int) -> Tensor:
    """One step per output channel (the first axis), shaped to broadcast over ``weight``."""
    max_abs = weight.detach().abs().flatten(1).amax(dim=1)
    return delta_of_range(max_abs, bits).view(-1, *[1] * (weight.dim() - 1))


def observed_delta(values: Tensor, bits: int, calibration: str) -> Tensor:
    """One step for a tensor of calibration values.

    Args:
        values: Observed activations, any shape.
        bits: Code width.
        calibration: ``minmax`` covers the largest magnitude; ``percentile`` the 99.9th percentile of magnitudes;
            ``mse`` takes the step, of 40 between a quarter and the whole of the range, with the least mean
            squared error.
    """
    magnitudes = values.detach().abs().flatten().float()
    top = magnitudes.max()
    if calibration == "minmax":
        return delta_of_range(top, bits)
    if calibration == "percentile":
        rank = max(1, round(0.999 * magnitudes.numel()))
        return delta_of_range(magnitudes.kthvalue(rank).values, bits)
    sample = spread_sample(values.detach().flatten(), MSE_VALUES).float()
    deltas = delta_of_range(top * torch.linspace(0.25, 1.0, 40, device=top.device), bits)
    errors = (quantize(sample[None], deltas[:, None], bits) - sample[None]).square().mean(dim=1)
    return deltas[errors.argmin()]


def spread_sample(flat: Tensor, count: int) -> Tensor:
    """About ``count`` values of a flattened tensor, evenly spread.

    The stride shares no factor with the length: one that shares a factor with the width of a layer would look at
    a few channels only.
    """
    stride = max(1, flat.numel() // count)
    while math.gcd(stride, flat.numel()) > 1:
        stride += 1
    return flat[::stride]
