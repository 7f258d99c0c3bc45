"""What rankings that learn which heads and hidden units matter have in common.

Shape suffixes: H heads, M hidden units.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from vitsearch.compress.weights.context import PruneContext
from vitsearch.models import Block, VisionTransformer

BUDGET_WEIGHT = 10.0


def epochs_to_learn(context: PruneContext, name: str) -> int:
    """The first half of the epochs, rounded up; the rest is for fine-tuning.

    Raises:
        ValueError: There are none.
    """
    epochs = (context.epochs + 1) // 2
    if not epochs:
        raise ValueError(f"the {name} ranking has to learn; set train.finetune_epochs to 2 or more")
    return epochs


def unit_inputs(model: VisionTransformer) -> Iterator[tuple[tuple[nn.Module, str], tuple[nn.Module, str]]]:
    """For each block, where its heads and where its hidden units enter a projection: the output's and W2."""
    for block in model.blocks:
        assert isinstance(block, Block)
        yield (block.attn, "proj"), (block.mlp, "fc2")


def share_of_macs(
    model: VisionTransformer, tokens: Sequence[int], gates: Sequence[tuple[Tensor, Tensor]]
) -> Tensor:
    """R = sum over heads and hidden units of gate times MACs, relative to all their MACs; a scalar.

    Args:
        model: Of the sizes that all units together have.
        tokens: Tokens that enter block 1, ..., depth, and leave the last.
        gates: For each block, of its heads (H,) and hidden units (M,); 1 where one stays, 0 where it goes.
    """
    left, whole = [], 0
    for i, ((heads_H, units_M), w) in enumerate(zip(gates, model.widths, strict=True)):
        head, unit = w.head_macs(tokens[i]), w.unit_macs(tokens[i + 1])
        left += [head * heads_H.sum(), unit * units_M.sum()]
        whole += head * w.heads + unit * w.mlp_units
    return torch.stack(left).sum() / whole
