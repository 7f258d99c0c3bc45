"""The sizes of one transformer block after structured pruning."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BlockWidths:
    """What decides the shapes of one block's weights.

    Attributes:
        width: Embedding channels D, the same in every block of a network.
        heads: Attention heads H.
        qk_dim: Width of the queries and keys of one head, Q.
        v_dim: Width of the values of one head, V.
        mlp_units: Hidden units of the MLP, M.
    """

    width: int
    heads: int
    qk_dim: int
    v_dim: int
    mlp_units: int

    @property
    def qk_width(self) -> int:
        """Width of all queries, H Q; that of all keys is the same."""
        return self.heads * self.qk_dim

    @property
    def v_width(self) -> int:
        """Width of all values, H V."""
        return self.heads * self.v_dim
