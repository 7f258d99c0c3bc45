"""A smaller dense network out of a larger one: which units stay, and their weights.

Shape suffixes: D channels, M hidden units, H heads, Q width of a head's queries and keys, V width of its values,
all of them after pruning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vitsearch.candidate import BlockWidths
from vitsearch.compress.weights.units import BlockUnits, Units, strongest
from vitsearch.models import Block, RepeatedBlock, VisionTransformer

OWN_WIDTH = ("patch_embed.norm.", "patch_embed.convs.")  # parameters before there are embedding channels


@dataclass(frozen=True, kw_only=True)
class KeptBlock:
    """What stays of one block.

    Attributes:
        index: Its place among the blocks there were, from 0.
        mlp_units_M: Indices of hidden units.
        heads_H: Indices of heads.
        qk_HQ: Indices of query and key dimensions, within each kept head.
        v_HV: Indices of value dimensions, within each kept head.
        like: A block of these sizes; tells class attention and mixed heads.
    """

    index: int
    mlp_units_M: Tensor
    heads_H: Tensor
    qk_HQ: Tensor
    v_HV: Tensor
    like: BlockWidths


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What stays of a network, all indices ascending.

    Attributes:
        channels_D: Indices of embedding channels.
        blocks: What stays of each block that stays.
    """

    channels_D: Tensor
    blocks: tuple[KeptBlock, ...]

    @property
    def widths(self) -> tuple[BlockWidths, ...]:
        """The sizes of each block."""
        return tuple(
            replace(
                block.like,
                width=len(self.channels_D),
                heads=len(block.heads_H),
                qk_dim=block.qk_HQ.shape[1],
                v_dim=block.v_HV.shape[1],
                mlp_units=len(block.mlp_units_M),
            )
            for block in self.blocks
        )


def choose(scores: Units, widths: Sequence[BlockWidths], share: int = 1) -> Kept:
    """The units of greatest score, as many as ``widths`` say; equal scores keep the first.

    Blocks come first; the widths are those of the blocks that stay, in order. Each head that stays keeps its own
    dimensions. Class-attention blocks, the last ones, all stay. Blocks that share their weights stay or go
    together by the sum of their scores, and keep the units that are best for the first of them, whose weights they
    are.

    Args:
        scores: Of every unit of the network.
        widths: Sizes of the blocks that stay.
        share: How many consecutive blocks share their weights.
    """
    in_last = sum(w.class_tokens > 0 for w in widths)
    before = torch.stack([block.block for block in scores.blocks[: len(scores.blocks) - in_last]])
    groups = strongest(before.view(-1, share).sum(dim=1), (len(widths) - in_last) // share)
    blocks = [group * share + i for group in groups.tolist() for i in range(share)]
    blocks += range(len(before), len(scores.blocks))
    firsts = [index - index % share for index in blocks]
    return Kept(
        channels_D=strongest(scores.channels_D, widths[0].width),
        blocks=tuple(
            _choose_in_block(index, scores.blocks[first], size)
            for index, first, size in zip(blocks, firsts, widths, strict=True)
        ),
    )


def _choose_in_block(index: int, scores: BlockUnits, size: BlockWidths) -> KeptBlock:
    heads_H = strongest(scores.heads_H, size.heads)
    return KeptBlock(
        index=index,
        like=size,
        mlp_units_M=strongest(scores.mlp_units_M, size.mlp_units),
        heads_H=heads_H,
        qk_HQ=torch.stack([strongest(row, size.qk_dim) for row in scores.qk_HQ[heads_H]]),
        v_HV=torch.stack([strongest(row, size.v_dim) for row in scores.v_HV[heads_H]]),
    )


@torch.no_grad()
def slice_network(model: VisionTransformer, kept: Kept) -> VisionTransformer:
    """The network of the kept units alone; ``model`` stays as it is.

    It computes what ``model`` would with the outputs of all other units at zero, dropped blocks the identity and
    LayerNorms taken over the kept channels: heads keep the scale 1/sqrt(head_dim) of the dense network. Where
    heads are mixed, a head that leaves takes its row and its column of the mixing along.
    """
    architecture = model.architecture.model_copy(update={"depth": len(kept.blocks)})
    small = VisionTransformer(architecture, widths=kept.widths).to(next(model.parameters()))
    channels_D = kept.channels_D
    old = model.state_dict()
    state = {}
    for name, value in old.items():
        if name.startswith("blocks."):
            continue
        if name in {f"{head}.weight" for head in model.head_names}:
            state[name] = value[:, channels_D]
        elif name in {f"{head}.bias" for head in model.head_names} or name.startswith(OWN_WIDTH):
            state[name] = value
        else:  # tokens and positions hold channels last; kernels, biases and norms first
            state[name] = value[..., channels_D] if name.endswith(("_token", "pos_embed")) else value[channels_D]
    for number, block in enumerate(kept.blocks):
        source = model.blocks[block.index]
        assert isinstance(source, Block)
        taken = _sliced_block(source, block, channels_D)
        state |= {f"blocks.{number}.{name}": value for name, value in taken.items()}
    small.load_state_dict(state)
    return small.train(model.training)


def _sliced_block(old: Block, kept: KeptBlock, channels_D: Tensor) -> dict[str, Tensor]:
    attention, units_M = old.attn, kept.mlp_units_M
    H, Q, V = attention.num_heads, attention.qk_dim, attention.v_dim
    qk_rows = (kept.heads_H[:, None] * Q + kept.qk_HQ).flatten()
    v_rows = (kept.heads_H[:, None] * V + kept.v_HV).flatten()
    rows = {
        "qkv": torch.cat([qk_rows, H * Q + qk_rows, 2 * H * Q + v_rows]),
        "q": qk_rows,
        "kv": torch.cat([qk_rows, H * Q + v_rows]),
    }
    state, taken = old.state_dict(), {}
    if not isinstance(old, RepeatedBlock):  # whose weights are another block's
        for layer in attention.inputs:
            taken[f"attn.{layer}.weight"] = state[f"attn.{layer}.weight"][rows[layer]][:, channels_D]
            taken[f"attn.{layer}.bias"] = state[f"attn.{layer}.bias"][rows[layer]]
        taken |= {
            "attn.proj.weight": state["attn.proj.weight"][channels_D][:, v_rows],
            "mlp.fc1.weight": state["mlp.fc1.weight"][units_M][:, channels_D],
            "mlp.fc1.bias": state["mlp.fc1.bias"][units_M],
            "mlp.fc2.weight": state["mlp.fc2.weight"][channels_D][:, units_M],
        }
    for name, value in state.items():
        if name.startswith("mixing."):
            taken[name] = value[kept.heads_H][:, kept.heads_H]
        if name in taken or name.startswith("reducer."):
            continue
        # what an attention variant learns for each head, and everything as wide as the stream
        per_head = name.startswith("attn.") and name != "attn.proj.bias"
        taken[name] = value[kept.heads_H if per_head else channels_D]
    return taken
