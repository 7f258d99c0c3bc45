"""Ternary weights and activations scaled token by token (BitLinear; Ma et al., The Era of 1-bit LLMs, 2024).

The rule for weights of two bits and inputs of linear layers of any width k::

    gamma = mean |W|,   Q(W) = gamma * clamp(round(W / gamma), -1, 1)
    Delta_t = max_d |x_td| / (2^(k-1) - 1),   Q(x_t) = Delta_t * round(x_t / Delta_t)      for each token t

with one gamma per layer. Three values need log2(3) = 1.58 bits; they are counted, as they would be stored, at 2.
Everything else, weights of other widths, image patches and the operands of attention among it, is Eq. 5. Made for
``training: ste``, which measures gamma anew at each step; without it accuracy suffers much. (The paper normalises
the input of each layer once more; in a ViT, a LayerNorm stands before two of the four.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from vitsearch.compress.quantize.codes import Quantizer, Site
from vitsearch.compress.quantize.uniform import Uniform, delta_of_range, positive, quantize

TERNARY_BITS = 2


class Ternary(Uniform):
    """Codes -1, 0 and 1 at two bits, described by gamma; Eq. 5 at other widths."""

    follows_training = True

    def measures(self, bits: int) -> bool:
        """At two bits."""
        return bits == TERNARY_BITS

    def of_weights(self, weight: Tensor, bits: int) -> Tensor:  # noqa: ARG002
        """The mean magnitude of the whole layer, for each channel."""
        return positive(weight.abs().mean()).expand(1, weight.shape[0])

    def quantize(self, x: Tensor, theta: Tensor, bits: int) -> Tensor:
        """Round to codes and back."""
        if bits != TERNARY_BITS:
            return super().quantize(x, theta, bits)
        return (x / theta[0]).round().clamp(-1, 1) * theta[0]

    def bounds(self, theta: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """The first code and the last."""
        return (-theta[0], theta[0]) if bits == TERNARY_BITS else super().bounds(theta, bits)


class PerToken:
    """Eq. 5 with a step for each token, which covers it; the calibrated Delta only tells how wide steps may be."""

    numbers = 1
    continuous = False
    scales = False

    def covering(self, low: Tensor, high: Tensor, bits: int) -> Tensor:
        """As for one step per tensor."""
        return Uniform().covering(low, high, bits)

    def choices(self, theta: Tensor, shares: Tensor, bits: int) -> Tensor:  # noqa: ARG002
        """There is nothing to choose."""
        return theta[None]

    def quantize(self, x: Tensor, theta: Tensor, bits: int) -> Tensor:  # noqa: ARG002
        """Round to codes and back; tokens are all but the last axis."""
        return quantize(x, delta_of_range(x.detach().abs().amax(dim=-1, keepdim=True), bits), bits)

    def bounds(self, theta: Tensor, bits: int) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """None: nothing is clamped."""
        return torch.full_like(theta[0], -torch.inf), torch.full_like(theta[0], torch.inf)

    def step(self, theta: Tensor, bits: int) -> Tensor:  # noqa: ARG002
        """That of the token with the largest value."""
        return theta[0]


def build_ternary() -> Quantizer:
    """BitLinear in linear layers, Eq. 5 elsewhere."""
    sites: tuple[Site, ...] = ("norm", "attention", "gelu")
    return Quantizer(weight=Ternary(), activation=Uniform(), sites={site: PerToken() for site in sites})
