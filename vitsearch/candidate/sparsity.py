"""What structured pruning leaves of each block."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.per_block import per_block
from vitsearch.config.base import Spec
from vitsearch.config.named import KeyOf

# Structured pruning: one line for each ranking, with its ``Pruner``.
PRUNERS: dict[str, str] = {"magnitude": "vitsearch.compress.weights.magnitude:prune_magnitude"}
PrunerName = Annotated[str, KeyOf(PRUNERS, others=("none",))]

Count = Annotated[int, Field(ge=1)]


class Sparsity(Spec):
    """How many MLP units and attention heads of each block survive structured pruning.

    Attributes:
        method: How units are ranked, a name in ``PRUNERS``; ``none`` keeps all.
        mlp_units: Units kept, one figure for all blocks or one per block; all when left out.
        heads: Heads kept, likewise.
    """

    method: PrunerName = "none"
    mlp_units: Count | tuple[Count, ...] | None = None
    heads: Count | tuple[Count, ...] | None = None

    def resolved(self, architecture: Architecture) -> Sparsity:
        """The canonical form; plain ``Sparsity()`` when nothing is pruned.

        Raises:
            ValueError: More units are kept than exist, or a tuple is not ``depth`` long.
        """
        kept_units = self.mlp_units_per_block(architecture)
        kept_heads = self.heads_per_block(architecture)
        for what, kept, available in (
            ("mlp_units", kept_units, architecture.mlp_units),
            ("heads", kept_heads, architecture.heads),
        ):
            if max(kept) > available:
                raise ValueError(f"sparsity.{what} must be at most {available}, but got {max(kept)}")
        if min(kept_units) == architecture.mlp_units and min(kept_heads) == architecture.heads:
            return Sparsity()
        if self.method == "none":
            raise ValueError(
                f"sparsity.method must be named when units are pruned; choose {KeyOf(PRUNERS).expected}"
            )
        return Sparsity(
            method=self.method,
            mlp_units=_collapsed(kept_units, architecture.mlp_units),
            heads=_collapsed(kept_heads, architecture.heads),
        )

    def mlp_units_per_block(self, architecture: Architecture) -> tuple[int, ...]:
        """Units kept in block 1, ..., depth."""
        return per_block(self.mlp_units, architecture.mlp_units, architecture.depth, "sparsity.mlp_units")

    def heads_per_block(self, architecture: Architecture) -> tuple[int, ...]:
        """Heads kept in block 1, ..., depth."""
        return per_block(self.heads, architecture.heads, architecture.depth, "sparsity.heads")


def _collapsed(kept: tuple[int, ...], available: int) -> int | tuple[int, ...] | None:
    if len(set(kept)) > 1:
        return kept
    return None if kept[0] == available else kept[0]
