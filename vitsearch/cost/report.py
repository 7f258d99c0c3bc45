"""All known costs of one candidate at once."""

from __future__ import annotations

from vitsearch.candidate import Candidate, CostKind
from vitsearch.config import EerSpec, Spec
from vitsearch.cost import params
from vitsearch.cost.eer import DEFAULT_EER, eer_pct
from vitsearch.cost.macs import num_macs


class Cost(Spec):
    """What a candidate costs before anything is trained or measured.

    Attributes:
        num_params: Parameters.
        num_macs: MACs of one image.
        bits: (weight_bits + activation_bits) / 2.
        weight_bits: Mean bits of a weight.
        activation_bits: Mean bits of an activation operand.
        size_mb: Stored size in MB of 10^6 bytes.
        tokens: Tokens entering block 1, ..., depth, and leaving the last; see ``Candidate.token_counts``.
        kind: ``exact``, or ``bounded`` when token counts depend on the image.
    """

    num_params: int
    num_macs: int
    bits: float
    weight_bits: float
    activation_bits: float
    size_mb: float
    tokens: tuple[int, ...]
    kind: CostKind = "exact"

    def eer_values(self) -> dict[str, float]:
        """The figures in the names and units of ``eer_pct``."""
        return {
            "params": float(self.num_params),
            "macs": float(self.num_macs),
            "bits": self.bits,
            "size": self.size_mb,
        }

    def eer_pct(self, spec: EerSpec = DEFAULT_EER, measured: dict[str, float] | None = None) -> float | None:
        """EER in percent, or None while it needs a measurement that ``measured`` lacks."""
        values = self.eer_values() | (measured or {})
        if any(metric not in values for metric in spec.metrics):
            return None
        return eer_pct(values, spec)


def cost_of(candidate: Candidate) -> Cost:
    """Parameters, MACs, bits and size in closed form, without building a tensor."""
    weights = params.weight_bits(candidate)
    activations = params.activation_bits(candidate)
    return Cost(
        num_params=params.num_params(candidate),
        num_macs=num_macs(candidate),
        bits=(weights + activations) / 2,
        weight_bits=weights,
        activation_bits=activations,
        size_mb=params.size_mb(candidate),
        tokens=candidate.token_counts,
        kind=candidate.tokens.cost_kind,
    )
