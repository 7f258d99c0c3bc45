"""Twin uniform quantisation (PTQ4ViT, Yuan et al. 2022; survey Eq. 23).

The rule: a value is in **one** of two ranges, decided by where it falls; the k-th bit says which, so each has k -
1 bits, Psi(x, Delta) = Delta * clamp(round(x / Delta), 0, 2^(k-1) - 1)::

    softmax outputs:  T(x) = Psi(x, Delta_1)    if x < 2^(k-1) Delta_1
                             Psi(x, Delta_2)    otherwise,   Delta_2 = 2^m Delta_1 = 2^-(k-1)
    GELU outputs:     T(x) = -Psi(-x, Delta_1)  if x < 0,    Delta_1 = 0.16997 / (2^(k-1) - 1)
                             Psi(x, Delta_2)    otherwise

The published code adds the results of both ranges; this one does not. m is a whole number from 0 to k - 1: beyond
that the second range could not hold the values the first leaves to it. GELU is never less than -0.16997, which
stands on the last negative code; its positive step is free.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vitsearch.compress.quantize.codes import Quantizer
from vitsearch.compress.quantize.uniform import Uniform, positive

GELU_MINIMUM = 0.16997


class TwinSoftmax:
    """Codes for values in [0, 1], described by Delta_1 and Delta_2."""

    numbers = 2
    continuous = False
    scales = False

    def covering(self, low: Tensor, high: Tensor, bits: int) -> Tensor:  # noqa: ARG002
        """Half of the exponents on either side, m = k // 2, until a calibration chooses m."""
        return self._ranges(bits, high)[bits // 2]

    def choices(self, theta: Tensor, shares: Tensor, bits: int) -> Tensor:  # noqa: ARG002
        """Every m from 0 to k - 1."""
        return self._ranges(bits, theta[0])

    def quantize(self, x: Tensor, theta: Tensor, bits: int) -> Tensor:
        """Round to codes and back."""
        first, second, last = theta[0], theta[1], 2 ** (bits - 1) - 1
        small = (x / first).round().clamp(0, last) * first
        large = (x / second).round().clamp(0, last) * second
        return torch.where(x < first * (last + 1), small, large)

    def bounds(self, theta: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """The first code and the last."""
        return torch.zeros_like(theta[1]), theta[1] * (2 ** (bits - 1) - 1)

    def step(self, theta: Tensor, bits: int) -> Tensor:  # noqa: ARG002
        """Delta_2."""
        return theta[1]

    @staticmethod
    def _ranges(bits: int, like: Tensor) -> Tensor:
        second = 2.0 ** -(bits - 1)
        ranges = torch.tensor([(second / 2**m, second) for m in range(bits)], dtype=like.dtype, device=like.device)
        return ranges.reshape(bits, 2, *[1] * like.dim()).expand(-1, -1, *like.shape)


class TwinGelu:
    """Codes for outputs of GELU, described by Delta_2."""

    numbers = 1
    continuous = True
    scales = False

    def covering(self, low: Tensor, high: Tensor, bits: int) -> Tensor:  # noqa: ARG002
        """The largest value on the last positive code."""
        return positive(high)[None] / (2 ** (bits - 1) - 1)

    def choices(self, theta: Tensor, shares: Tensor, bits: int) -> Tensor:  # noqa: ARG002
        """Shares of Delta_2."""
        return theta * shares[:, None]

    def quantize(self, x: Tensor, theta: Tensor, bits: int) -> Tensor:
        """Round to codes and back."""
        last = 2 ** (bits - 1) - 1
        first, second = GELU_MINIMUM / last, theta[0]
        negative = (x / first).round().clamp(-last, 0) * first
        return torch.where(x < 0, negative, (x / second).round().clamp(0, last) * second)

    def bounds(self, theta: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """The first code and the last."""
        return torch.full_like(theta[0], -GELU_MINIMUM), theta[0] * (2 ** (bits - 1) - 1)

    def step(self, theta: Tensor, bits: int) -> Tensor:
        """The wider of Delta_1 and Delta_2."""
        return theta[0].clamp_min(GELU_MINIMUM / (2 ** (bits - 1) - 1))


def build_twin() -> Quantizer:
    """Two ranges for softmax and GELU, Eq. 5 elsewhere."""
    return Quantizer(weight=Uniform(), activation=Uniform(), sites={"softmax": TwinSoftmax(), "gelu": TwinGelu()})
