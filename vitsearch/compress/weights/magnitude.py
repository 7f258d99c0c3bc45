"""Structured magnitude pruning: units rank by the norm of their weights."""

from __future__ import annotations

from torch import Tensor

from vitsearch.compress.weights.context import PruneContext, Ranked
from vitsearch.compress.weights.units import parameters_of, strongest, unit_sums
from vitsearch.models import Block, VisionTransformer

__all__ = ["head_scores", "mlp_unit_scores", "rank_magnitude", "strongest"]


def rank_magnitude(model: VisionTransformer, context: PruneContext) -> Ranked:  # noqa: ARG001
    """score_u = sqrt(sum of w^2 over the weights w of unit u) (Li et al., 2017, *Pruning Filters*, with p = 2)."""
    squares = {name: value.square() for name, value in parameters_of(model).items()}
    return Ranked(model, unit_sums(model, squares).map(Tensor.sqrt))


def mlp_unit_scores(block: Block) -> Tensor:
    """score_j = sqrt(norm(W1[j, :])^2 + b1[j]^2 + norm(W2[:, j])^2) for each hidden unit j; shape (M,)."""
    fc1, fc2 = block.mlp.fc1, block.mlp.fc2
    squared = fc1.weight.square().sum(dim=1) + fc1.bias.square() + fc2.weight.square().sum(dim=0)
    return squared.sqrt().detach()


def head_scores(block: Block) -> Tensor:
    """score_h = norm of all weights of head h: its rows of q, k and v and its columns of the projection; (H,)."""
    attention = block.attn
    heads, width = attention.num_heads, attention.head_dim
    qkv = attention.joined_inputs()[0].view(3, heads, width, -1).square().sum(dim=(0, 2, 3))
    proj = attention.proj.weight.view(-1, heads, width).square().sum(dim=(0, 2))
    return (qkv + proj).sqrt().detach()
