"""Rows of powers of two beside rows of fixed-point codes in the MLP (Auto-ViT-Acc, Li et al. 2022), simulated.

The rule for the weights of a layer of the MLP, row c with s_c = max |W_c|, at k = 3 to 8 bits::

    Q(w) = s_c * sign(w) * 2^-e,    e = round(-log2(|w| / s_c)),    0 if e > 2^(k-1) - 2        (power of two)
           Eq. 5 with Delta = s_c / (2^(k-1) - 1)                                              (fixed point)

One bit is the sign, the others say e or zero. The half of the rows with the least variance have powers of two,
which are dense near zero; ties go to the earlier row. On an FPGA such a row needs shifts in place of multipliers;
here it changes accuracy alone, and bits are counted as those of any other weight. Which row is which follows from
the trained weights and stays while they are trained through. Everything else is Eq. 5, other widths too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vitsearch.compress.quantize.codes import Quantizer
from vitsearch.compress.quantize.uniform import Uniform, positive

SHARE = 0.5
LEAST_BITS = 3


class MixedRows:
    """Codes described by Delta and by 1 for a row of powers of two, 0 for one of fixed-point codes."""

    numbers = 2
    continuous = True
    scales = True
    follows_training = False

    def measures(self, bits: int) -> bool:
        """At every width."""
        return bits < 16

    def of_weights(self, weight: Tensor, bits: int) -> Tensor:
        """Ranges (2, C) that cover each row; the rows of least variance have powers of two."""
        rows = weight.flatten(1)
        theta = self.covering(*rows.aminmax(dim=1), bits)
        if bits >= LEAST_BITS:
            order = rows.var(dim=1, correction=0).argsort(stable=True)
            theta[1, order[: round(SHARE * len(order))]] = 1
        return theta

    def covering(self, low: Tensor, high: Tensor, bits: int) -> Tensor:
        """As in Eq. 5, fixed point."""
        delta = Uniform().covering(low, high, bits)
        return torch.cat([delta, torch.zeros_like(delta)])

    def choices(self, theta: Tensor, shares: Tensor, bits: int) -> Tensor:  # noqa: ARG002
        """Shares of Delta; rows keep their kind."""
        return torch.stack([theta[0] * shares, theta[1].expand_as(shares)], dim=1)

    def quantize(self, x: Tensor, theta: Tensor, bits: int) -> Tensor:
        """Round to codes and back."""
        fixed = Uniform().quantize(x, theta[:1], bits)
        if bits < LEAST_BITS:
            return fixed
        largest = theta[0] * (2 ** (bits - 1) - 1)
        exponent = -torch.log2(positive(x.abs()) / largest).round().clamp_max(0)
        powers = torch.where(exponent > 2 ** (bits - 1) - 2, 0.0, torch.exp2(-exponent)) * x.sign() * largest
        return torch.where(theta[1] > 0, powers, fixed)

    def bounds(self, theta: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """The first code and the last; powers of two are symmetric."""
        low, high = Uniform().bounds(theta[:1], bits)
        return torch.where(theta[1] > 0, -high, low), high

    def step(self, theta: Tensor, bits: int) -> Tensor:
        """Delta; half of the largest magnitude between powers of two."""
        return torch.where(theta[1] > 0, theta[0] * (2 ** (bits - 1) - 1) / 2, theta[0])


def build_auto_vit_acc() -> Quantizer:
    """Mixed rows in the MLP, Eq. 5 elsewhere."""
    return Quantizer(weight=Uniform(), activation=Uniform(), mlp_weight=MixedRows())
