"""What a rule that maps values to codes must offer, and where in a network which rule applies.

Shape suffixes: P numbers that describe a range, C output channels, K choices; S is nothing for one range per
tensor and (C,) for one per channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from torch import Tensor

from vitsearch.candidate.precision import QUANTIZERS as TABLE
from vitsearch.config.named import Imported

# What is quantised: the inputs of projections by what made them, and the operands of attention's products.
Site = Literal["patches", "relu", "norm", "attention", "gelu", "q", "k", "v", "logits", "softmax", "mixed"]


class Codes(Protocol):
    """A rule that rounds values to codes of k bits and back.

    Its range is described by P numbers, ``theta`` of shape (P, *S). Rounding twice changes nothing more, and a
    larger value never gets a smaller result.

    Attributes:
        numbers: P.
        continuous: Whether ranges vary on a continuum of shares; otherwise ``choices`` lists all there are.
        scales: Whether results are multiples of the first number, Q(c x; c Delta) = c Q(x; Delta), so that it can
            be learned by LSQ; other numbers say how many codes lie where, and stay.
    """

    numbers: int
    continuous: bool
    scales: bool

    def covering(self, low: Tensor, high: Tensor, bits: int) -> Tensor:
        """The range (P, *S) that reaches from the least value (*S) to the largest (*S)."""
        ...

    def choices(self, theta: Tensor, shares: Tensor, bits: int) -> Tensor:
        """Ranges (K, P, *S) that are ``shares`` (K, *S), all positive, of the given one."""
        ...

    def quantize(self, x: Tensor, theta: Tensor, bits: int) -> Tensor:
        """Values rounded to codes and back; ``theta`` (P, ...) broadcasts to (P, *x.shape)."""
        ...

    def bounds(self, theta: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """The least and the largest result, each (...) like one number; values beyond are clamped."""
        ...

    def step(self, theta: Tensor, bits: int) -> Tensor:
        """The widest distance of two neighbouring codes within the range, (*S)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Quantizer:
    """Which codes a network gets where.

    Attributes:
        weight: Codes of weights, one range per output channel.
        mlp_weight: Codes of the weights of the MLP, in place of ``weight``.
        activation: Codes of activations, one range per tensor.
        sites: Codes of particular activations, in place of ``activation``.
        folds_norms: Whether outputs of LayerNorm are scaled per channel first, the scales folded into its
            parameters and the weights that follow.
    """

    weight: Codes
    activation: Codes
    sites: Mapping[Site, Codes] = field(default_factory=dict)
    folds_norms: bool = False
    mlp_weight: Codes | None = None

    def at(self, site: Site) -> Codes:
        """The codes of one activation."""
        return self.sites.get(site, self.activation)


@runtime_checkable
class ScaledByWeights(Protocol):
    """Codes whose ranges follow from all weights of a layer, not from the least and the largest alone.

    Attributes:
        follows_training: Whether a training straight through measures them anew at each step.
    """

    follows_training: bool

    def measures(self, bits: int) -> bool:
        """Whether they do so at that width."""
        ...

    def of_weights(self, weight: Tensor, bits: int) -> Tensor:
        """The ranges (P, C) of weights (C, ...)."""
        ...


class QuantizerBuilder(Protocol):
    """Makes a quantiser."""

    def __call__(self) -> Quantizer:
        """A quantiser; its codes hold no state."""
        ...


QUANTIZERS: Mapping[str, QuantizerBuilder] = Imported(TABLE, path=lambda kind: kind.build)


def per_channel(theta: Tensor, x: Tensor) -> Tensor:
    """Ranges (P, C) in the shape that broadcasts over ``x`` (C, ...)."""
    return theta.reshape(*theta.shape, *[1] * (x.dim() - 1))
