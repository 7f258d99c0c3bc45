"""Figures for every unit that structured pruning can remove: scores, or sums over the unit's weights.

Shape suffixes: D channels, M hidden units, H heads, Q width of a head's queries and keys, V width of its values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitsearch.models import Block, RepeatedBlock, VisionTransformer


@dataclass(frozen=True, kw_only=True)
class BlockUnits:
    """One figure for each unit of one block.

    Attributes:
        mlp_units_M: Hidden units of the MLP.
        heads_H: Attention heads.
        qk_HQ: Dimensions of each head's queries and keys.
        v_HV: Dimensions of each head's values.
        block: The block as a whole; a scalar.
    """

    mlp_units_M: Tensor
    heads_H: Tensor
    qk_HQ: Tensor
    v_HV: Tensor
    block: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> BlockUnits:
        """The same function of every figure."""
        return BlockUnits(**{name: function(value) for name, value in vars(self).items()})

    def plus(self, other: BlockUnits) -> BlockUnits:
        """Figure by figure."""
        return BlockUnits(**{name: value + getattr(other, name) for name, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Units:
    """One figure for each unit of a network.

    Attributes:
        channels_D: Embedding channels.
        blocks: Everything inside each block.
    """

    channels_D: Tensor
    blocks: tuple[BlockUnits, ...]

    def map(self, function: Callable[[Tensor], Tensor]) -> Units:
        """The same function of every figure."""
        return Units(
            channels_D=function(self.channels_D), blocks=tuple(block.map(function) for block in self.blocks)
        )

    def plus(self, other: Units) -> Units:
        """Figure by figure."""
        return Units(
            channels_D=self.channels_D + other.channels_D,
            blocks=tuple(ours.plus(theirs) for ours, theirs in zip(self.blocks, other.blocks, strict=True)),
        )


def unit_sums(model: VisionTransformer, values: Mapping[str, Tensor]) -> Units:
    """Sums over each unit's weights of whatever stands at their places.

    Its weights are, for a hidden unit j, W1[j, :], b1[j] and W2[:, j]; for a dimension of queries and keys, its
    two rows; for a dimension of values, its row and its column of the projection; for a head, all of these; for a
    block, its heads and hidden units; for a channel, the rows that write it (patches, projections, W2) and the
    columns that read it (queries, keys, values, W1). Biases of attention, norms, tokens and classifiers belong to
    no unit, nor do a stem's convolutions and the mixing of heads.

    Blocks that share their weights have the same figures, and count once for a channel.

    Args:
        model: Says which weight is whose.
        values: A tensor of each parameter's shape, by the parameter's name.
    """
    channels_D = values["patch_embed.proj.weight"].flatten(1).sum(dim=1)
    found: list[BlockUnits] = []
    for number, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        if isinstance(block, RepeatedBlock):
            found.append(found[-1])
            continue
        prefix = f"blocks.{number}."
        proj, fc1, fc2 = (values[f"{prefix}{layer}.weight"] for layer in ("attn.proj", "mlp.fc1", "mlp.fc2"))
        qkv = torch.cat([values[f"{prefix}attn.{layer}.weight"] for layer in block.attn.inputs])
        H, Q, V = block.attn.num_heads, block.attn.qk_dim, block.attn.v_dim
        q_HQ, k_HQ, v_HV = (
            part.sum(dim=1).view(H, -1) for part in (qkv[: H * Q], qkv[H * Q : 2 * H * Q], qkv[2 * H * Q :])
        )
        v_HV = v_HV + proj.sum(dim=0).view(H, V)
        heads_H = (q_HQ + k_HQ).sum(dim=1) + v_HV.sum(dim=1)
        units_M = fc1.sum(dim=1) + values[f"{prefix}mlp.fc1.bias"] + fc2.sum(dim=0)
        found.append(
            BlockUnits(
                mlp_units_M=units_M,
                heads_H=heads_H,
                qk_HQ=q_HQ + k_HQ,
                v_HV=v_HV,
                block=heads_H.sum() + units_M.sum(),
            )
        )
        channels_D = channels_D + proj.sum(dim=1) + fc2.sum(dim=1) + qkv.sum(dim=0) + fc1.sum(dim=0)
    return Units(channels_D=channels_D, blocks=tuple(found))


def strongest(scores: Tensor, count: int) -> Tensor:
    """Indices of the ``count`` largest scores, ascending, so that survivors keep their order."""
    return scores.argsort(descending=True, stable=True)[:count].sort().values


def parameters_of(model: VisionTransformer) -> dict[str, Tensor]:
    """Its parameters by name, detached."""
    return {name: value.detach() for name, value in model.named_parameters()}


def random_units(model: VisionTransformer, generator: torch.Generator) -> Units:
    """Independent uniform figures in [0, 1)."""
    shapes = unit_sums(model, parameters_of(model))
    return shapes.map(lambda value: torch.rand(value.shape, generator=generator).to(value.device))


def projections(model: VisionTransformer) -> Iterator[tuple[nn.Module, str]]:
    """Where the linear layers of the blocks stand; those that blocks share once."""
    for block in model.blocks:
        assert isinstance(block, Block)
        if not isinstance(block, RepeatedBlock):
            yield from projections_of(block)


def projections_of(block: Block) -> Iterator[tuple[nn.Module, str]]:
    """Those that make queries, keys and values, then the output projection, W1 and W2."""
    yield from ((block.attn, name) for name in block.attn.inputs)
    yield from ((block.attn, "proj"), (block.mlp, "fc1"), (block.mlp, "fc2"))
