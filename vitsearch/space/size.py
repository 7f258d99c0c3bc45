"""How large a search space is."""

from __future__ import annotations

import itertools
import math
from collections import Counter

from vitsearch.space.dimension import Dimension
from vitsearch.space.shape import BLOCKS_RATIO, Shape, blocks_kept, shape_of
from vitsearch.space.space import SearchSpace

MAX_ENUMERATED = 200_000
Group = tuple[Shape, tuple[tuple[str, object], ...]]
SHAPE_FIELDS = tuple(f"architecture.{name}" for name in ("depth", "share_blocks", "class_attention_blocks"))


def continuous_fields(space: SearchSpace) -> list[str]:
    """Settings drawn from a continuum, which no count covers."""
    return [axis.name for axis in space.dimensions if axis.cardinality is None]


def num_configurations(space: SearchSpace) -> int:
    """Configurations the space can express; an axis that is a continuum counts as one value.

    Architectures are counted after repair (heads that do not divide the width are not counted twice). The other
    settings multiply, conditions taken into account; per-block axes count once for each block that is left and has
    a figure of its own. A condition on ``sparsity.blocks_ratio`` itself is not followed.
    """
    architecture = [axis for axis in space.dimensions if axis.field.startswith("architecture.")]
    others = [axis for axis in space.dimensions if not axis.field.startswith("architecture.")]
    governing = {name for axis in others for name, _ in axis.when}
    total = 0
    for (shape, values), count in _architectures(space, architecture, governing).items():
        for chosen in _shares_of_blocks(space, others):
            blocks = blocks_kept(shape, chosen.get(BLOCKS_RATIO, 0.0))
            alive = [axis for axis in others if axis.name != BLOCKS_RATIO and _counts(axis, blocks, shape)]
            total += count * _count(alive, {**chosen, **dict(values)})
    return total


def _counts(axis: Dimension, blocks: int, shape: Shape) -> bool:
    """Whether an axis decides anything in a network of so many blocks."""
    if axis.block is None:
        return True
    if axis.field.startswith("tokens."):
        return axis.block <= blocks - shape.class_blocks
    return axis.block <= blocks and (axis.block - 1) % shape.share == 0


def _shares_of_blocks(space: SearchSpace, axes: list[Dimension]) -> list[dict[str, object]]:
    """The fixed settings, once for each share of blocks that can be dropped."""
    axis = next((axis for axis in axes if axis.name == BLOCKS_RATIO), None)
    if axis is None:
        return [dict(space.fixed)]
    shares = axis.values() if axis.cardinality is not None else axis.values()[:1]
    return [{**space.fixed, BLOCKS_RATIO: share} for share in shares]


def _architectures(space: SearchSpace, axes: list[Dimension], governing: set[str]) -> Counter[Group]:
    """Architectures by what the other axes depend on: the blocks there are, and values that conditions name."""
    rest = {axis.name: axis.values()[0] for axis in space.dimensions if axis not in axes}
    enumerated = axes
    if math.prod(axis.cardinality or 1 for axis in axes) > MAX_ENUMERATED:  # too many to repair: count the draws
        enumerated = [axis for axis in axes if axis.field in SHAPE_FIELDS or axis.name in governing]
        rest |= {axis.name: axis.values()[0] for axis in axes if axis not in enumerated}
    factor = math.prod(axis.cardinality or 1 for axis in axes if axis not in enumerated)
    named = [axis.name for axis in enumerated]
    seen = set()
    for drawn in itertools.product(*(axis.values() for axis in enumerated)):
        draw = {**rest, **dict(zip(named, drawn, strict=True))}
        active = space.active_values(draw)
        values = tuple((name, active.get(name)) for name in named if name in governing)
        seen.add((space.architecture_of(draw), values))
    groups: Counter[Group] = Counter()
    for found, values in seen:
        groups[shape_of(found), values] += factor
    return groups


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
