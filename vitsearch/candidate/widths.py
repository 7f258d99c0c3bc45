"""The sizes of one transformer block after structured pruning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class BlockWidths:
    """What decides the shapes of one block's weights.

    Attributes:
        width: Embedding channels D, the same in every block of a network.
        heads: Attention heads H.
        qk_dim: Width of the queries and keys of one head, Q.
        v_dim: Width of the values of one head, V.
        mlp_units: Hidden units of the MLP, M.

    Numbers of tokens may be arrays or tensors over images; MACs then are too.
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

    def linear_macs(self, num_tokens: Any, num_tokens_out: Any) -> Any:
        """MACs of the block's linear layers: N D H (2 Q + V) + N H V D + 2 N' D M."""
        attention = 2 * num_tokens * self.width * (self.qk_width + self.v_width)
        return attention + self.mlp_units * self.unit_macs(num_tokens_out)

    def attention_macs(self, num_tokens: Any) -> Any:
        """MACs of the attention products: N^2 H (Q + V)."""
        return num_tokens**2 * (self.qk_width + self.v_width)

    def head_macs(self, num_tokens: int) -> int:
        """MACs of one head: its share of the linear layers and its products."""
        return (2 * num_tokens * self.width + num_tokens**2) * (self.qk_dim + self.v_dim)

    def unit_macs(self, num_tokens_out: Any) -> Any:
        """MACs of one hidden unit: 2 N' D."""
        return 2 * num_tokens_out * self.width
