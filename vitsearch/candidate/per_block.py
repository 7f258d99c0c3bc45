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
