"""Structured magnitude pruning: rank units by the norm of their weights, keep the strongest, slice."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitsearch.candidate import Candidate
from vitsearch.models import Block, VisionTransformer, build_pruned


def mlp_unit_scores(block: Block) -> Tensor:
    """score_j = sqrt(norm(W1[j, :])^2 + b1[j]^2 + norm(W2[:, j])^2) for each hidden unit j; shape (M,)."""
    fc1, fc2 = block.mlp.fc1, block.mlp.fc2
    squared = fc1.weight.square().sum(dim=1) + fc1.bias.square() + fc2.weight.square().sum(dim=0)
    return squared.sqrt().detach()


def head_scores(block: Block) -> Tensor:
    """score_h = norm of all weights of head h: its rows of q, k and v and its columns of the projection; (H,)."""
    attention = block.attn
    heads, width = attention.num_heads, attention.head_dim
    qkv = attention.qkv.weight.view(3, heads, width, -1).square().sum(dim=(0, 2, 3))
    proj = attention.proj.weight.view(-1, heads, width).square().sum(dim=(0, 2))
    return (qkv + proj).sqrt().detach()


def strongest(scores: Tensor, count: int) -> Tensor:
    """Indices of the ``count`` largest scores, ascending, so that survivors keep their order."""
    return scores.argsort(descending=True, stable=True)[:count].sort().values


def prune_magnitude(model: VisionTransformer, candidate: Candidate) -> VisionTransformer:
    """A smaller dense network with the candidate's numbers of heads and MLP units.

    Heads keep their original scale 1/sqrt(head_dim), so the sliced network computes what the masked one would.

    Args:
        model: The trained dense network; not changed.
        candidate: Says how many units survive in each block.
    """
    pruned = build_pruned(candidate).to(next(model.parameters()).device)
    pruned.load_state_dict(_state_outside_blocks(model), strict=False)
    for old, new in zip(model.blocks, pruned.blocks, strict=True):
        assert isinstance(old, Block)
        assert isinstance(new, Block)
        _slice_block(old, new)
    return pruned


def _state_outside_blocks(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if not name.startswith("blocks.")}


@torch.no_grad()
def _slice_block(old: Block, new: Block) -> None:
    units = strongest(mlp_unit_scores(old), new.mlp.fc1.out_features)
    heads = strongest(head_scores(old), new.attn.num_heads)
    head_dim = old.attn.head_dim
    rows = (heads[:, None] * head_dim + torch.arange(head_dim, device=heads.device)).flatten()
    qkv_rows = torch.cat([rows + part * old.attn.num_heads * head_dim for part in range(3)])
    new.attn.qkv.weight.copy_(old.attn.qkv.weight[qkv_rows])
    new.attn.qkv.bias.copy_(old.attn.qkv.bias[qkv_rows])
    new.attn.proj.weight.copy_(old.attn.proj.weight[:, rows])
    new.attn.proj.bias.copy_(old.attn.proj.bias)
    new.mlp.fc1.weight.copy_(old.mlp.fc1.weight[units])
    new.mlp.fc1.bias.copy_(old.mlp.fc1.bias[units])
    new.mlp.fc2.weight.copy_(old.mlp.fc2.weight[:, units])
    new.mlp.fc2.bias.copy_(old.mlp.fc2.bias)
    for name in ("norm1", "norm2", "ls1", "ls2"):
        getattr(new, name).load_state_dict(getattr(old, name).state_dict())
