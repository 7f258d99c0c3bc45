"""Ranges chosen from the values of one tensor alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vitsearch.compress.quantize.codes import Codes
from vitsearch.compress.quantize.layers import QuantizedProjection, observing, spread_sample
from vitsearch.models import VisionTransformer

MSE_VALUES = 16_384
MSE_CHOICES = 40
PERCENTILE = 0.999

RangeRule = Callable[[Tensor, int, Codes], Tensor]


def minmax(model: VisionTransformer, batches: Sequence[Tensor]) -> None:
    """Every range covers all values seen; weights are covered channel by channel."""
    settle_by(covering_range, model, batches)


def percentile(model: VisionTransformer, batches: Sequence[Tensor]) -> None:
    """Activation ranges cover the 99.9th percentile of magnitudes."""
    settle_by(percentile_range, model, batches)


def mse(model: VisionTransformer, batches: Sequence[Tensor]) -> None:
    """Of 40 ranges between a quarter and the whole of the one that covers, the one of least mean squared error."""
    settle_by(mse_range, model, batches)


def settle_by(rule: RangeRule, model: VisionTransformer, batches: Sequence[Tensor]) -> None:
    """Quantise weights, then choose each activation's range from what it is with those weights."""
    for module in model.modules():
        if isinstance(module, QuantizedProjection):
            module.settle()
    settle_activations(rule, model, batches)


def settle_activations(rule: RangeRule, model: VisionTransformer, batches: Sequence[Tensor]) -> None:
    """Choose each activation's range from the values that unquantised activations have."""
    with observing(model) as quantizers:
        for images_BCHW in batches:
            model(images_BCHW)
        for quantizer in quantizers:
            values = quantizer.observed()
            if len(values):
                quantizer.settle(rule(values, quantizer.bits, quantizer.codes))


def covering_range(values: Tensor, bits: int, codes: Codes) -> Tensor:
    """The range (P,) from the least value to the largest."""
    low, high = values.float().aminmax()
    return codes.covering(low, high, bits)


def percentile_range(values: Tensor, bits: int, codes: Codes) -> Tensor:
    """The range (P,) of the values whose magnitude is at most the 99.9th percentile."""
    magnitudes = values.abs().flatten().float()
    limit = magnitudes.kthvalue(max(1, round(PERCENTILE * magnitudes.numel()))).values
    return covering_range(values.clamp(-limit, limit), bits, codes)


def mse_range(values: Tensor, bits: int, codes: Codes) -> Tensor:
    """The range (P,) that quantises with the least mean squared error."""
    sample = spread_sample(values.flatten(), MSE_VALUES).float()
    shares = torch.linspace(0.25, 1.0, MSE_CHOICES, device=sample.device)
    ranges = codes.choices(covering_range(values, bits, codes), shares, bits)
    errors = [(codes.quantize(sample, theta, bits) - sample).square().mean() for theta in ranges]
    return ranges[torch.stack(errors).argmin()]
