"""Which blocks there are to set, and how many of them a ratio leaves."""

from __future__ import annotations

from typing import NamedTuple

from vitsearch.candidate import Architecture

BLOCKS_RATIO = "sparsity.blocks_ratio"


class Shape(NamedTuple):
    """What of an architecture decides which blocks there are to set.

    Attributes:
        depth: Its blocks.
        share: How many consecutive ones share their weights.
        class_blocks: How many of the last are of class attention.
    """

    depth: int
    share: int
    class_blocks: int


def shape_of(architecture: Architecture) -> Shape:
    """The shape of an architecture."""
    return Shape(architecture.depth, architecture.share_blocks, architecture.class_attention_blocks)


def blocks_kept(shape: Shape, ratio: object) -> int:
    """Blocks that a ratio leaves: whole groups of those that share weights, class-attention blocks and one more.

    Raises:
        ValueError: It is no number in [0, 1).
    """
    groups = num_kept(shape.depth // shape.share, ratio, BLOCKS_RATIO)
    return max(groups * shape.share, shape.class_blocks + 1)


def num_kept(available: int, ratio: object, name: str) -> int:
    """What a ratio leaves.

    Raises:
        ValueError: It is no number in [0, 1).
    """
    if not isinstance(ratio, int | float) or isinstance(ratio, bool) or not 0 <= ratio < 1:
        raise ValueError(f"{name} must lie in [0, 1), but got {ratio!r}; write 0.5, for example")
    return max(1, available - int(ratio * available + 1e-9))
