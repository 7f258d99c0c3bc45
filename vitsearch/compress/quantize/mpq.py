"""Matthew-effect preserving quantisation of attention (APQ-ViT, Ding et al. 2022; survey Eq. 24-25).

The rule for softmax outputs a, which lie in [0, 1]::

    Delta = max(a) / (2^k - 1),   Q(a) = Delta * clamp(round(a / Delta), 0, 2^k - 1)

No code is lost to a sign that never occurs, and the few large values, which carry the attention, are told apart;
everything else is Eq. 5. Ranges are chosen ``blockwise`` unless the candidate says otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vitsearch.compress.quantize.codes import Quantizer
from vitsearch.compress.quantize.uniform import Uniform, positive


class Unsigned:
    """Codes for values that are never negative, described by Delta."""

    numbers = 1
    continuous = True
    scales = True

    def covering(self, low: Tensor, high: Tensor, bits: int) -> Tensor:  # noqa: ARG002
        """The largest value on the last code."""
        return positive(high)[None] / (2**bits - 1)

    def choices(self, theta: Tensor, shares: Tensor, bits: int) -> Tensor:  # noqa: ARG002
        """Shares of Delta."""
        return theta * shares[:, None]

    def quantize(self, x: Tensor, theta: Tensor, bits: int) -> Tensor:
        """Round to codes and back."""
        return (x / theta[0]).round().clamp(0, 2**bits - 1) * theta[0]

    def bounds(self, theta: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """The first code and the last."""
        return torch.zeros_like(theta[0]), theta[0] * (2**bits - 1)

    def step(self, theta: Tensor, bits: int) -> Tensor:  # noqa: ARG002
        """Delta."""
        return theta[0]


def build_mpq() -> Quantizer:
    """Unsigned softmax outputs, Eq. 5 elsewhere."""
    return Quantizer(weight=Uniform(), activation=Uniform(), sites={"softmax": Unsigned()})
