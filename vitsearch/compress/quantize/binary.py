"""Weights and activations of one bit, as BinaryViT (Le and Li 2023) has them.

The rule at one bit, for the weights W_c of output channel c, an activation x and softmax outputs a::

    Q(W_c) = mean |W_c| * sign(W_c),   Q(x) = alpha * sign(x),   Q(a) = alpha * clamp(round(a / alpha), 0, 1)

with sign(0) = 1 and an alpha for each activation, calibrated, and learned under ``training: lsq``. Gradients pass
where |x| <= alpha, and to every weight. Other widths are Eq. 5 (softmax outputs: unsigned). Weights of one bit are
counted at one, their scales per channel not, as with every other quantiser.

What BinaryViT adds to the architecture is ``architecture.pooling_branches``
(``vitsearch.models.pooling_branches`` says what of it is there); its distillation from the full network is
``train.distill``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vitsearch.compress.quantize.codes import Quantizer
from vitsearch.compress.quantize.mpq import Unsigned
from vitsearch.compress.quantize.uniform import Uniform, positive


class Sign(Uniform):
    """Codes -1 and 1 at one bit, described by their magnitude; Eq. 5 at other widths."""

    def covering(self, low: Tensor, high: Tensor, bits: int) -> Tensor:
        """Half of the largest magnitude: codes that nearly every value lies between."""
        return super().covering(low, high, bits) / (2 if bits == 1 else 1)

    def quantize(self, x: Tensor, theta: Tensor, bits: int) -> Tensor:
        """Round to codes and back."""
        return torch.where(x >= 0, theta[0], -theta[0]) if bits == 1 else super().quantize(x, theta, bits)

    def bounds(self, theta: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """The first code and the last."""
        return (-theta[0], theta[0]) if bits == 1 else super().bounds(theta, bits)


class SignOfWeights(Sign):
    """``Sign`` with the mean magnitude of each output channel."""

    follows_training = True

    def measures(self, bits: int) -> bool:
        """At one bit."""
        return bits == 1

    def of_weights(self, weight: Tensor, bits: int) -> Tensor:  # noqa: ARG002
        """The mean magnitude of each channel."""
        return positive(weight.abs().flatten(1).mean(dim=1))[None]


def build_binary() -> Quantizer:
    """Signs at one bit."""
    return Quantizer(weight=SignOfWeights(), activation=Sign(), sites={"softmax": Unsigned()})
