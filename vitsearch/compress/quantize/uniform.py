"""Uniform symmetric quantisation, simulated: values are rounded to k-bit codes and back.

The rule (survey Eq. 5)::

    Q(x) = Delta * clamp(round(x / Delta), -2^(k-1), 2^(k-1) - 1)

Weights have one Delta per output channel, activations one per tensor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vitsearch.compress.quantize.codes import Quantizer


class Uniform:
    """Eq. 5, described by Delta."""

    numbers = 1
    continuous = True
    scales = True

    def covering(self, low: Tensor, high: Tensor, bits: int) -> Tensor:
        """The largest magnitude on the last positive code."""
        return delta_of_range(torch.maximum(low.abs(), high.abs()), bits)[None]

    def choices(self, theta: Tensor, shares: Tensor, bits: int) -> Tensor:  # noqa: ARG002
        """Shares of Delta."""
        return theta * shares[:, None]

    def quantize(self, x: Tensor, theta: Tensor, bits: int) -> Tensor:
        """See ``quantize``."""
        return quantize(x, theta[0], bits)

    def bounds(self, theta: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """The first code and the last."""
        return theta[0] * -(2 ** (bits - 1)), theta[0] * (2 ** (bits - 1) - 1)

    def step(self, theta: Tensor, bits: int) -> Tensor:  # noqa: ARG002
        """Delta."""
        return theta[0]


def build_uniform() -> Quantizer:
    """Eq. 5 everywhere."""
    return Quantizer(weight=Uniform(), activation=Uniform())


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
    return positive(max_abs) / max(1, 2 ** (bits - 1) - 1)


def positive(length: Tensor) -> Tensor:
    """A length of at least a tiny figure, so that nothing divides by zero."""
    return length.clamp_min(torch.finfo(torch.float32).tiny * 2**16)


def channel_delta(weight: Tensor, bits: int) -> Tensor:
    """One step per output channel (the first axis), shaped to broadcast over ``weight``."""
    max_abs = weight.detach().abs().flatten(1).amax(dim=1)
    return delta_of_range(max_abs, bits).view(-1, *[1] * (weight.dim() - 1))
