"""Settings that are one figure for all blocks, or one for each."""

from __future__ import annotations


def per_block(value: int | tuple[int, ...] | None, default: int, depth: int, name: str) -> tuple[int, ...]:
    """One figure per block.

    Raises:
        ValueError: ``value`` is a tuple of another length than ``depth``.
    """
    if isinstance(value, tuple):
        if len(value) != depth:
            raise ValueError(f"{name} must have one figure per block, but got {len(value)} for depth={depth}")
        return value
    return (default if value is None else value,) * depth


def check_shared(values: tuple[int, ...], share: int, name: str) -> None:
    """Refuse figures that differ among blocks with the same weights.

    Args:
        values: One figure per block.
        share: How many consecutive blocks share their weights.
        name: The setting.

    Raises:
        ValueError: They differ.
    """
    for first in range(0, len(values), share):
        group = values[first : first + share]
        if len(set(group)) > 1:
            raise ValueError(
                f"{name} must be the same for blocks that share their weights, but got {list(group)} for blocks "
                f"{first + 1} to {first + len(group)}; repeat one figure there, or set architecture.share_blocks=1"
            )
