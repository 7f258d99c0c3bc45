"""Quantisation with a zero point.

The rule (Jacob et al., Quantization and Training of Neural Networks, Eq. 1 and Section 3)::

    Delta = (max - min) / (2^k - 1),   z = round(-min / Delta)
    Q(x) = Delta * (clamp(round(x / Delta) + z, 0, 2^k - 1) - z)

with min <= 0 <= max, so that zero has a code. Weights have one Delta and z per output channel, activations one per
tensor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vitsearch.compress.quantize.codes import Quantizer
from vitsearch.compress.quantize.uniform import positive


class Asymmetric:
    """Codes with a zero point, described by Delta and z."""

    numbers = 2
    continuous = True
    scales = True

    def covering(self, low: Tensor, high: Tensor, bits: int) -> Tensor:
        """The least value on the first code, the largest on the last, but for the rounding of z."""
        low, high = low.clamp_max(0), high.clamp_min(0)
        delta = positive(high - low) / (2**bits - 1)
        return torch.stack([delta, (-low / delta).round()])

    def choices(self, theta: Tensor, shares: Tensor, bits: int) -> Tensor:  # noqa: ARG002
        """Shares of Delta under the same zero point: both ends of the range move alike."""
        return torch.stack([theta[0] * shares, theta[1].expand_as(shares)], dim=1)

    def quantize(self, x: Tensor, theta: Tensor, bits: int) -> Tensor:
        """Round to codes and back."""
        delta, zero = theta[0], theta[1]
        return ((x / delta).round() + zero).clamp(0, 2**bits - 1).sub(zero) * delta

    def bounds(self, theta: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """The first code and the last."""
        delta, zero = theta[0], theta[1]
        return -zero * delta, (2**bits - 1 - zero) * delta

    def step(self, theta: Tensor, bits: int) -> Tensor:  # noqa: ARG002
        """Delta."""
        return theta[0]


def build_asymmetric() -> Quantizer:
    """A zero point everywhere."""
    return Quantizer(weight=Asymmetric(), activation=Asymmetric())
