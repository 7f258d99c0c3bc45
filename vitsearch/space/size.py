"""How large a search space is."""

from __future__ import annotations

import itertools
import math
from collections import Counter

from vitsearch.space.dimension import Dimension
from vitsearch.space.space import SearchSpace

MAX_ENUMERATED = 200_000


def continuous_fields(space: SearchSpace) -> list[str]:
    """Settings drawn from a continuum, which no count covers."""
    return [axis.name for axis in space.dimensions if axis.cardinality is None]


def num_configurations(space: SearchSpace) -> int:
    """Configurations the space can express; an axis that is a continuum counts as one value.

    Architectures are counted after repair (heads that do not divide the width are not counted twice). The other
    settings multiply, conditions taken into account; per-block axes count once for each block the depth has.
    """
    architecture = [axis for axis in space.dimensions if axis.field.startswith("architecture.")]
    others = [axis for axis in space.dimensions if not axis.field.startswith("architecture.")]
    total = 0
    for depth, count in _architectures_by_depth(space, architecture).items():
        alive = [axis for axis in others if axis.block is None or axis.block <= depth]
        total += count * _count(alive, {name: value for name, value in space.fixed.items()})
    return total


def _architectures_by_depth(space: SearchSpace, axes: list[Dimension]) -> Counter[int]:
    combinations = math.prod(axis.cardinality or 1 for axis in axes)
    rest = {axis.name: axis.values()[0] for axis in space.dimensions if axis not in axes}
    if combinations > MAX_ENUMERATED:  # too many to repair one by one: count the draws
        depth_axis = next((axis for axis in axes if axis.field == "architecture.depth"), None)
        if depth_axis is None:
            return Counter({space.max_depth: combinations})
        share = combinations // (depth_axis.cardinality or 1)
        return Counter({int(depth): share for depth in depth_axis.values()})
    seen = set()
    for values in itertools.product(*(axis.values() for axis in axes)):
        drawn = dict(zip((axis.name for axis in axes), values, strict=True))
        seen.add(space.decode({**rest, **drawn}).architecture)
    return Counter(architecture.depth for architecture in seen)


def _count(axes: list[Dimension], chosen: dict[str, object]) -> int:
    """Combinations of ``axes``, each counted only where its condition holds."""
    governing = {name for axis in axes for name, _ in axis.when}
    for i, axis in enumerate(axes):
        if axis.name in governing and axis.name not in chosen:
            rest = axes[:i] + axes[i + 1 :]
            if not all(chosen.get(name) in values for name, values in axis.when):
                return _count(rest, {**chosen, axis.name: None})
            return sum(_count(rest, {**chosen, axis.name: value}) for value in axis.values())
    alive = [axis for axis in axes if all(chosen.get(name) in values for name, values in axis.when)]
    return math.prod(axis.cardinality or 1 for axis in alive)
