"""NViT: what the loss would miss without a unit, less what the machine would save."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from vitsearch.compress.weights.context import PruneContext, Ranked
from vitsearch.compress.weights.latency import Gains, latency_gains
from vitsearch.compress.weights.taylor import rank_taylor
from vitsearch.compress.weights.units import BlockUnits, Units
from vitsearch.models import VisionTransformer

LATENCY_WEIGHT = 0.1


def rank_nvit(model: VisionTransformer, context: PruneContext) -> Ranked:
    """Squared Taylor importance across all kinds of units, minus a gain in latency.

    The rule (Yang et al., 2023, *Global Vision Transformer Pruning with Hessian-Aware Saliency*)::

        score_u = I_u / I - eta T_u / T,  I_u = sum over batches of (sum over the weights w of u of w dL/dw)^2

    with eta = 0.1, T_u the time that unit u takes, and I and T the sums over all heads and hidden units, so that
    eta needs no unit. Heads and hidden units of all blocks are compared as they are, not relative to their kind: a
    head's figure is that of all its weights. A block has the sums over what is in it. Channels, and the dimensions
    of one head, take the same time each and rank by I_u / I.

    The paper's table is measured once for a target; this one is measured on the machine and device that trains, at
    the candidate's numbers of tokens, see ``latency_gains``. Another machine may therefore rank otherwise under a
    budget of MACs or where blocks go; units that compete within one block do not depend on it. The paper's table
    has channels and dimensions, too.

    Raises:
        ValueError: There are no batches.
    """
    if not context.batches:
        raise ValueError("the nvit ranking needs labelled batches; give them in PruneContext.batches")
    importance = rank_taylor(model, context).scores
    gains = latency_gains(model.widths, context.tokens_of(model), model.pos_embed.device)
    return Ranked(model, less_latency(importance, gains), across_kinds=True)


def less_latency(importance: Units, gains: tuple[Gains, ...], eta: float = LATENCY_WEIGHT) -> Units:
    """score_u = I_u / I - eta T_u / T for every unit."""
    total = torch.stack([block.heads_H.sum() + block.mlp_units_M.sum() for block in importance.blocks]).sum()
    scale = torch.where(total > 0, 1 / total, torch.ones_like(total))
    seconds = sum(
        len(block.heads_H) * gain.head + len(block.mlp_units_M) * gain.unit
        for block, gain in zip(importance.blocks, gains, strict=True)
    )
    price = eta / seconds if seconds else 0.0

    def block_scores(block: BlockUnits, gain: Gains) -> BlockUnits:
        found = block.map(lambda value: value * scale)
        paid: dict[str, Tensor] = {
            "heads_H": found.heads_H - price * gain.head,
            "mlp_units_M": found.mlp_units_M - price * gain.unit,
        }
        return replace(found, **paid, block=sum((one.sum() for one in paid.values()), torch.zeros_like(total)))

    return Units(
        channels_D=importance.channels_D * scale,
        blocks=tuple(block_scores(*pair) for pair in zip(importance.blocks, gains, strict=True)),
    )
