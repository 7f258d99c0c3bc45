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
        class_tokens: Tokens C of a class-attention block, which alone attend, over themselves and the N patches,
            and alone reach the MLP; 0 where all N tokens do.
        mixes_heads: Whether heads are mixed before and after the softmax (weight multiplexing).

    Numbers of tokens may be arrays or tensors over images; MACs then are too.
    """

    width: int
    heads: int
    qk_dim: int
    v_dim: int
    mlp_units: int
    class_tokens: int = 0
    mixes_heads: bool = False

    @property
    def qk_width(self) -> int:
        """Width of all queries, H Q; that of all keys is the same."""
        return self.heads * self.qk_dim

    @property
    def v_width(self) -> int:
        """Width of all values, H V."""
        return self.heads * self.v_dim

    def linear_macs(self, num_tokens: Any, num_tokens_out: Any) -> Any:
        """MACs of the block's linear layers: N D H (2 Q + V) + N H V D + 2 N' D M.

        Class attention has (N + C) keys and values, C queries, and C tokens in the MLP. Mixing adds 2 N^2 H^2.
        """
        keys, queries = self._keys_and_queries(num_tokens)
        attention = (keys + queries) * self.width * (self.qk_width + self.v_width)
        mixing = 2 * keys * queries * self.heads**2 if self.mixes_heads else 0
        return attention + mixing + self.mlp_units * self.unit_macs(num_tokens_out)

    def attention_macs(self, num_tokens: Any) -> Any:
        """MACs of the attention products: N^2 H (Q + V), or C (N + C) H (Q + V)."""
        keys, queries = self._keys_and_queries(num_tokens)
        return keys * queries * (self.qk_width + self.v_width)

    def head_macs(self, num_tokens: int) -> int:
        """MACs of one head: its share of the linear layers and its products."""
        keys, queries = self._keys_and_queries(num_tokens)
        macs: int = ((keys + queries) * self.width + keys * queries) * (self.qk_dim + self.v_dim)
        return macs

    def unit_macs(self, num_tokens_out: Any) -> Any:
        """MACs of one hidden unit: 2 N' D."""
        return 2 * (self.class_tokens or num_tokens_out) * self.width

    def normed_tokens(self, num_tokens: Any, num_tokens_out: Any) -> Any:
        """Tokens that both LayerNorms see: N + N'."""
        return self._keys_and_queries(num_tokens)[0] + (self.class_tokens or num_tokens_out)

    def _keys_and_queries(self, num_tokens: Any) -> tuple[Any, Any]:
        return num_tokens + self.class_tokens, self.class_tokens or num_tokens
