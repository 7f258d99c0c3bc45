"""The cheapest and the costliest member of a search space, without visiting them all."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from vitsearch.candidate import Candidate, NoReduction
from vitsearch.config import EerSpec, Value
from vitsearch.cost import cost_of, eer_pct
from vitsearch.cost.macs import block_macs
from vitsearch.errors import InputError
from vitsearch.space import SPARSITY_RATIOS, Dimension, Draw, SearchSpace

End = Literal[-1, 1]
MONOTONE = {
    "architecture.mlp_ratio": 1,
    **dict.fromkeys(SPARSITY_RATIOS, -1),
    "sparsity.macs_ratio": 1,
    "sparsity.zeros": -1,
    "precision.weight_bits": 1,
    "precision.activation_bits": 1,
}
FREE = {
    "tokens.tau",
    *(f"precision.{name}" for name in ("calibration", "quantizer", "noisy", "mixed", "training")),
}


@dataclass(frozen=True, kw_only=True)
class EerRange:
    """Where the EER of every member of a space lies; both ends are members.

    Attributes:
        cheapest: The member of least EER.
        cheapest_draw: A draw of it.
        costliest: The member of greatest EER.
        costliest_draw: A draw of it.
        low_pct: EER of ``cheapest``.
        high_pct: EER of ``costliest``.
    """

    cheapest: Candidate
    cheapest_draw: Draw
    costliest: Candidate
    costliest_draw: Draw
    low_pct: float
    high_pct: float


def eer_range(space: SearchSpace, spec: EerSpec | None = None) -> EerRange:
    """The least and the greatest EER in a space.

    MLP ratio, pruning and bits are held at their cheap or costly end, where all four figures are extreme at once:
    fewer bits always cost less EER (weights outnumber the biases and norms that 16-bit storage would halve). So is
    the width, separately for each number of heads that repair leaves. Every other architecture is looked at, and
    of those whose bound could beat the best so far, every setting of every token reducer. The bounds: no reducer
    costs less than the parameters, size and bits alone, and none adds more MACs than attention itself takes.

    A setting that varies on a continuum is looked at where it ends, and conditions on pruning or precision are not
    followed; no preset needs more.

    Args:
        space: The space.
        spec: Metrics and reference of EER; the metrics must be known before training.

    Raises:
        InputError: EER needs a measurement.
    """
    chosen = spec or EerSpec()
    if not {*chosen.metrics} <= {"params", "macs", "bits", "size"}:
        raise InputError("the range of EER needs metrics that no measurement decides", field="eer.metrics",
                         value=list(chosen.metrics))  # fmt: skip
    low, cheapest = _extreme(space, chosen, -1)
    high, costliest = _extreme(space, chosen, 1)
    return EerRange(
        cheapest=space.decode(cheapest), cheapest_draw=cheapest, costliest=space.decode(costliest),
        costliest_draw=costliest, low_pct=low, high_pct=high,
    )  # fmt: skip


def _extreme(space: SearchSpace, spec: EerSpec, end: End) -> tuple[float, Draw]:
    """The greatest of all members' EER times ``end``, as EER, and where it is."""
    reducers = _reducers(space)
    bounded: list[tuple[float, dict[str, Value]]] = []
    for draw in _architectures(space, end):
        dense = space.decode({**draw, **reducers[0]}).model_copy(update={"tokens": NoReduction()})
        bounded.append((end * _bound(dense, spec, end), draw))
    best = -float("inf")
    found: dict[str, Value] = {}
    for bound, draw in sorted(bounded, key=lambda pair: -pair[0]):
        if bound <= best:
            break
        for reducer in reducers:
            whole = {**draw, **reducer}
            member = space.decode(whole)
            rate = end * eer_pct(cost_of(member).eer_values(), spec)
            if end > 0 and member.tokens.cost_kind == "bounded":  # an image may keep every token
                rate = _bound(member.model_copy(update={"tokens": NoReduction()}), spec, end)
            if rate > best:
                best, found = rate, whole
    return end * best, found


def _bound(dense: Candidate, spec: EerSpec, end: End) -> float:
    """An EER that no token reducer passes on this architecture."""
    values = cost_of(dense).eer_values()
    own = sum(block.matmul for block in block_macs(dense))
    return eer_pct({**values, "macs": values["macs"] + own if end > 0 else 0.0}, spec)


def _architectures(space: SearchSpace, end: End) -> Iterator[dict[str, Value]]:
    """Draws without their token settings: monotone axes at one end, the others at each of their values."""
    axes = [axis for axis in space.dimensions if not axis.field.startswith("tokens.")]
    pinned = {axis.name: _end(axis, end) for axis in axes if axis.field in MONOTONE}
    pinned |= {axis.name: axis.values()[0] for axis in axes if axis.field.startswith("train.")}
    pair = [axis for axis in axes if axis.field in {"architecture.width", "architecture.heads"}]
    others = [axis for axis in axes if axis.name not in pinned and axis not in pair]
    first = {axis.name: axis.values()[0] for axis in space.dimensions}
    widest: dict[int, tuple[int, dict[str, Value]]] = {}
    for sizes in _product(pair):
        a = space.architecture_of({**first, **sizes})
        if a.heads not in widest or end * a.width > end * widest[a.heads][0]:
            widest[a.heads] = (a.width, sizes)
    for chosen in _product(others):
        for _, sizes in widest.values():
            yield {**pinned, **chosen, **sizes}


def _reducers(space: SearchSpace) -> list[dict[str, Value]]:
    """Every token setting; of an axis that cannot count beside the others, or costs nothing, one value."""
    found: list[dict[str, Value]] = [{}]
    for axis in space.dimensions:
        if axis.field.startswith("tokens."):
            found = [
                {**draw, axis.name: value}
                for draw in found
                for value in (axis.values() if _may_count(axis, {**space.fixed, **draw}) else axis.values()[:1])
            ]
    return found


def _may_count(axis: Dimension, chosen: Draw) -> bool:
    holds = all(chosen.get(name, values[0]) in values for name, values in axis.when)
    return holds and axis.field not in FREE


def _product(axes: list[Dimension]) -> Iterator[dict[str, Value]]:
    names = [axis.name for axis in axes]
    for values in itertools.product(*(axis.values() for axis in axes)):
        yield dict(zip(names, values, strict=True))


def _end(axis: Dimension, end: End) -> Value:
    ends = [value for value in axis.values() if not isinstance(value, str)]
    return max(ends, key=lambda value: end * MONOTONE[axis.field] * value)
