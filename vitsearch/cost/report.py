"""All known costs of one candidate at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vitsearch.candidate import BlockWidths, Candidate, CostKind
from vitsearch.config import EerSpec, Spec
from vitsearch.cost import params
from vitsearch.cost.eer import DEFAULT_EER, eer_pct
from vitsearch.cost.macs import Shape, Tokens, num_macs, shape_of
from vitsearch.messages import MeasuredCost


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
        kind: ``exact``; ``bounded`` where token counts depend on the image: MACs are the least that any image can
            need; ``measured`` where what stays depends on the trained weights (a budget of MACs): parameters, bits
            and size are estimates. A trial measures what is not exact, see ``measured_cost``.
        num_macs_p95: MACs that 95 % of the validation images do not exceed, where they were measured.
    """

    num_params: int
    num_macs: int
    bits: float
    weight_bits: float
    activation_bits: float
    size_mb: float
    tokens: tuple[int | float, ...]
    kind: CostKind = "exact"
    num_macs_p95: int | None = None

    def after(self, measured: MeasuredCost | None) -> Cost:
        """The cost as a trial found it; this one where it measured none."""
        return self if measured is None else Cost(**dict(measured), kind="measured")

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
    return _cost(candidate, shape_of(candidate), cost_kind(candidate))


def cost_kind(candidate: Candidate) -> CostKind:
    """How well the cost is known before training."""
    if candidate.tokens.cost_kind != "exact":
        return candidate.tokens.cost_kind
    return "exact" if candidate.sparsity.macs_ratio is None else "measured"


def measured_cost(
    candidate: Candidate, widths: Sequence[BlockWidths], tokens: Tokens | None = None
) -> MeasuredCost:
    """The cost of a trained network of this candidate.

    Args:
        candidate: The candidate.
        widths: The sizes that its blocks really have.
        tokens: The tokens that images really have, as arrays; MACs and tokens are means over them.
    """
    found = _cost(candidate, shape_of(candidate, widths, tokens), "measured")
    return MeasuredCost.model_validate(found.model_dump(exclude={"kind"}))


def _cost(candidate: Candidate, shape: Shape, kind: CostKind) -> Cost:
    weights = params.weight_bits(candidate, shape.widths)
    activations = params.activation_bits(candidate, shape)
    macs = num_macs(candidate, shape)
    over_images = not isinstance(macs, int)
    counts = [n for n, _ in shape.tokens.per_block] + [shape.tokens.final]
    return Cost(
        num_params=params.num_params(candidate, shape.widths),
        num_macs=round(float(macs.mean())) if over_images else macs,
        bits=(weights + activations) / 2,
        weight_bits=weights,
        activation_bits=activations,
        size_mb=params.size_mb(candidate, shape.widths),
        tokens=tuple(n if isinstance(n, int) else round(float(n.mean()), 1) for n in counts),
        kind=kind,
        num_macs_p95=round(float(np.percentile(macs, 95))) if over_images else None,
    )
