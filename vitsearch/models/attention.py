"""Multi-head self-attention that lets a token reducer look at what it computed.

Shape suffixes: B batch, N tokens, M queries, D width, H heads, K width of one head (after pruning that of values
may differ).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitsearch.models.head_mixing import HeadMixing

LEARNED_SIZE_EPS = 1e-6


@dataclass(frozen=True)
class AttentionState:
    """What one attention layer leaves for a token reducer.

    Attributes:
        q_BHNK: Queries, unscaled.
        k_BHNK: Keys.
        v_BHNK: Values.
        scale: What queries are multiplied with before the softmax.
        bias_B11N: Additive mask on the keys (log of token sizes), or None.
        hides_self: Whether no token attends to itself (LSA).
        mixing: What mixes the heads before and after the softmax, or None.
        learned_score_BP: What a learned score makes of the patches, where the reducer has one.
    """

    q_BHNK: Tensor
    k_BHNK: Tensor
    v_BHNK: Tensor
    scale: float
    bias_B11N: Tensor | None
    hides_self: bool = False
    mixing: HeadMixing | None = None
    learned_score_BP: Tensor | None = None

    def present_BN(self) -> Tensor | None:
        """1 where there is a token and 0 at empty places; None where there are none of those."""
        if self.bias_B11N is None:
            return None
        return (self.bias_B11N > -1).to(self.k_BHNK.dtype)[:, 0, 0]  # a token has size 1 and log 0 or more

    def logits_BHMN(self, num_queries: int | None = None) -> Tensor:
        """What the softmax is taken of, Q K^T / sqrt(K) + bias; for the first M queries or for all."""
        # scaled after the product, as quantised attention does: ONNX Runtime breaks a graph that has it both ways
        logits_BHMN = (self.q_BHNK[:, :, :num_queries] @ self.k_BHNK.transpose(-2, -1)) * self.scale
        if self.mixing is not None:
            logits_BHMN = self.mixing.before(logits_BHMN)
        bias = self.bias_B1MN(logits_BHMN.shape[2])
        return logits_BHMN if bias is None else logits_BHMN + bias

    def bias_B1MN(self, num_queries: int) -> Tensor | None:
        """What is added to the logits of the first M queries, M or 1 rows of it; None where that is nothing."""
        if not self.hides_self:
            return self.bias_B11N
        rows_M1 = torch.arange(num_queries, device=self.k_BHNK.device)[:, None]
        columns_N = torch.arange(self.k_BHNK.shape[2], device=self.k_BHNK.device)
        lowest = torch.finfo(self.k_BHNK.dtype).min / 2  # not -inf: a token that is alone attends to itself
        values = self.k_BHNK.new_tensor([0.0, lowest])
        hidden_MN = values[(rows_M1 == columns_N).long()]
        return hidden_MN[None, None] if self.bias_B11N is None else self.bias_B11N + hidden_MN

    def cls_attention_BHN(self) -> Tensor:
        """The CLS row of the attention matrix, softmax(q_cls K^T / sqrt(K) + bias); one row, never the matrix."""
        return self.logits_BHMN(1).squeeze(2).softmax(dim=-1)


class Attention(nn.Module):
    """Scaled dot-product attention with timm's parameter names.

    Args:
        dim: Width D of the residual stream.
        num_heads: Heads kept, H.
        head_dim: Width K of one head of the dense network; the scale stays 1/sqrt(K) whatever is pruned.
        dropout: Rate after the output projection.
        qk_dim: Width of one head's queries and keys after pruning; K by default.
        v_dim: Width of one head's values after pruning; K by default.
        hides_self: Whether no token attends to itself (LSA).
        num_queries: Leading tokens that alone attend (class attention); every token does at 0.

    Attributes:
        temperature_H: Learned temperature of each head under LSA while it trains; then folded into the queries.
    """

    temperature_H: nn.Parameter | None

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_dim: int,
        dropout: float = 0.0,
        *,
        qk_dim: int | None = None,
        v_dim: int | None = None,
        hides_self: bool = False,
        num_queries: int = 0,
    ) -> None:
        super().__init__()
        self.hides_self = hides_self
        self.register_parameter("temperature_H", None)
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.qk_dim, self.v_dim = qk_dim or head_dim, v_dim or head_dim
        self.scale = head_dim**-0.5
        self.fused = True
        self.num_queries = num_queries
        if num_queries:
            self.q = nn.Linear(dim, num_heads * self.qk_dim)
            self.kv = nn.Linear(dim, num_heads * (self.qk_dim + self.v_dim))
        else:
            self.qkv = nn.Linear(dim, num_heads * (2 * self.qk_dim + self.v_dim))
        self.proj = nn.Linear(num_heads * self.v_dim, dim)
        self.proj_drop = nn.Dropout(dropout)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The layers that make queries, keys and values; their rows stand in this order."""
        return ("q", "kv") if self.num_queries else ("qkv",)

    def joined_inputs(self) -> tuple[Tensor, Tensor]:
        """Weights and biases of these layers as if they were one: rows of queries, keys and values."""
        layers = [getattr(self, name) for name in self.inputs]
        return torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])

    @torch.no_grad()
    def set_inputs(self, weight: Tensor, bias: Tensor) -> None:
        """The reverse of ``joined_inputs``."""
        for name in self.inputs:
            layer = getattr(self, name)
            rows = len(layer.weight)
            layer.weight.copy_(weight[:rows])
            layer.bias.copy_(bias[:rows])
            weight, bias = weight[rows:], bias[rows:]

    def forward(
        self, x_BND: Tensor, bias_B11N: Tensor | None = None, mixing: HeadMixing | None = None
    ) -> tuple[Tensor, AttentionState]:
        """Attend; returns the projected output (B, M, D) and the state for a reducer."""
        state = self.project(x_BND, bias_B11N)
        if mixing is not None:
            state = replace(state, mixing=mixing)
        return self.finish(self.mix(state)), state

    def project(self, x_BND: Tensor, bias_B11N: Tensor | None) -> AttentionState:
        """Queries, keys and values."""
        B, N, _ = x_BND.shape
        H, Q, V = self.num_heads, self.qk_dim, self.v_dim
        if self.num_queries:
            parts = (self.q(x_BND[:, : self.num_queries]), *self.kv(x_BND).split([H * Q, H * V], dim=-1))
            q, k, v = (part.reshape(B, part.shape[1], H, -1).transpose(1, 2) for part in parts)
        elif Q == V:
            q, k, v = self.qkv(x_BND).reshape(B, N, 3, H, Q).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            parts = self.qkv(x_BND).split([H * Q, H * Q, H * V], dim=-1)
            q, k, v = (part.reshape(B, N, H, -1).transpose(1, 2) for part in parts)
        if self.temperature_H is not None:
            q = q / (self.temperature_H * self.scale).to(q.dtype)[:, None, None]
        return AttentionState(q, k, v, self.scale, bias_B11N, self.hides_self)

    def mix(self, state: AttentionState) -> Tensor:
        """softmax(Q K^T * scale + bias) V, shape (B, H, M, K); heads mixed before and after, if they are."""
        bias = state.bias_B1MN(state.q_BHNK.shape[2])
        bias = bias if bias is None else bias.to(state.q_BHNK.dtype)
        if self.fused and state.mixing is None:
            return F.scaled_dot_product_attention(
                state.q_BHNK, state.k_BHNK, state.v_BHNK, attn_mask=_expanded(bias, state), scale=self.scale
            )
        logits_BHMN = (state.q_BHNK * self.scale) @ state.k_BHNK.transpose(-2, -1)
        if state.mixing is not None:
            logits_BHMN = state.mixing.before(logits_BHMN)
        if bias is not None:
            logits_BHMN = logits_BHMN + bias
        attention_BHMN = logits_BHMN.softmax(dim=-1)
        if state.mixing is not None:
            attention_BHMN = state.mixing.after(attention_BHMN)
        return attention_BHMN @ state.v_BHNK

    def finish(self, mixed_BHNK: Tensor) -> Tensor:
        """Join the heads and project back to (B, N, D)."""
        B, H, N, K = mixed_BHNK.shape
        return self.proj_drop(self.proj(mixed_BHNK.transpose(1, 2).reshape(B, N, H * K)))


def _expanded(bias: Tensor | None, state: AttentionState) -> Tensor | None:
    if bias is None:
        return None
    B, _, M, _ = state.q_BHNK.shape
    return bias.expand(B, 1, M, state.k_BHNK.shape[2])  # the fused CPU kernel wants the query axis spelled out


def set_fused_attention(model: nn.Module, fused: bool) -> None:
    """Switch every attention layer between the fused kernel and plain matrix products."""
    for module in model.modules():
        if isinstance(module, Attention):
            module.fused = fused


def log_size_bias(size_BN: Tensor | None) -> Tensor | None:
    """Proportional attention: log of the token sizes, shaped (B, 1, 1, N) to add to logits (ToMe, Section 3).

    A place without a token has size 0, and log 0 = -inf hides it. While sizes are learned, log(s + 1e-6) stands
    for it: the derivative of exp(logit) s by s is exp(logit) at s = 0, too.
    """
    if size_BN is None:
        return None
    return torch.log(size_BN + LEARNED_SIZE_EPS if size_BN.requires_grad else size_BN)[:, None, None, :]
