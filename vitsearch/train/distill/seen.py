"""What a network computes on the way to its answer: the student's by hooks, the teacher's when it is asked.

Shape suffixes: B batch, N tokens, P patches, T width, K channels, G side of the grid of patches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from torch import Tensor, nn

from vitsearch.config import DistillSpec
from vitsearch.errors import InputError
from vitsearch.models import AttentionState, Block, VisionTransformer
from vitsearch.train.distill.answers import LiveAnswers

Parts = tuple[Tensor, Tensor, Tensor]


@dataclass(kw_only=True)
class Seen:
    """What one network has computed for a batch.

    Attributes:
        blocks: Tokens that leave each block (B, N, T), prefix tokens first, by its index; where tokens left, or
            where a route ran a block in steps of its own, there are none.
        parts: Queries, keys and values of each block (B, N, K), heads side by side.
        final: What a network that is no plain ViT returns as its features: a map, or tokens.
    """

    blocks: dict[int, Tensor] = field(default_factory=dict)
    parts: list[Parts] = field(default_factory=list)
    final: Tensor | None = None

    def clear(self) -> None:
        """Forget."""
        self.blocks.clear()
        self.parts.clear()
        self.final = None

    @property
    def complete(self) -> int:
        """How many blocks, from the first, left every token in its place."""
        return sum(1 for _ in takewhile(self.blocks.__contains__, range(len(self.blocks))))


@contextmanager
def watching(network: VisionTransformer | TimmVisionTransformer, seen: Seen) -> Iterator[None]:
    """Keep what the blocks of a ViT compute, from one forward pass to the next."""
    num_tokens = network.architecture.num_tokens if isinstance(network, VisionTransformer) else None
    handles = [network.patch_embed.register_forward_pre_hook(lambda *_: seen.clear())]
    for index, block in enumerate(network.blocks):
        handles.append(block.register_forward_hook(partial(_keep_tokens, seen, index, num_tokens)))
    # blocks that share their weights share this module, which is called for each of them
    attentions = dict.fromkeys(_attention_of(block) for block in network.blocks)
    handles += [
        one.register_forward_hook(lambda _, __, output: seen.parts.append(_parts(output)))
        for one in attentions
        if one is not None
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def seen_by(teacher: LiveAnswers, images_BCHW: Tensor) -> Seen:
    """What a teacher computes for images normalised as the student's, without gradients."""
    network: Any = teacher.network
    seen = Seen()
    with torch.no_grad():
        x_BCHW = teacher.prepared(images_BCHW)
        if is_plain_vit(network):
            with watching(network, seen):
                network.forward_features(x_BCHW)
        else:
            seen.final = network.forward_features(x_BCHW)
    return seen


def is_plain_vit(network: nn.Module) -> bool:
    """Whether a network is ours, or timm's own plain ViT, so that its blocks can be told from each other."""
    return isinstance(network, VisionTransformer | TimmVisionTransformer)


def num_blocks(network: nn.Module) -> int:
    """Blocks in which patches attend to each other."""
    if isinstance(network, VisionTransformer):
        return network.architecture.self_attention_part.depth
    assert isinstance(network, TimmVisionTransformer)
    return len(network.blocks)


def height_of(seen: Seen, network: nn.Module, share: float) -> int:
    """The teacher's block, from 0, that is as far up as ``share``, or the last one before its tokens leave."""
    blocks = num_blocks(network)
    return min(math.ceil(share * blocks - 1e-9), seen.complete, blocks) - 1


def patches_of(features: Tensor, network: nn.Module) -> Tensor | None:
    """Patches (B, G G, T) of tokens (B, N, T) or of a map, channels first or last; None where they are no grid.

    A grid is square and has more than one place.
    """
    if features.dim() == 4:
        width = getattr(network, "num_features", None)
        if width == features.shape[-1] and width != features.shape[1]:  # as timm's Swin
            features = features.permute(0, 3, 1, 2)
        return features.flatten(2).mT if features.shape[2] == features.shape[3] > 1 else None
    if features.dim() != 3:
        return None
    count = features.shape[1]
    prefix = _num_prefix(network, count)
    side = math.isqrt(max(0, count - prefix))
    return features[:, prefix:] if side > 1 and side * side == count - prefix else None


def resampled(patches_BPT: Tensor, side: int) -> Tensor:
    """The patches of a square grid on a grid of another side (bilinear, antialiased)."""
    G = math.isqrt(patches_BPT.shape[1])
    if side == G:
        return patches_BPT
    grid_BTGG = patches_BPT.mT.reshape(patches_BPT.shape[0], -1, G, G)
    return F.interpolate(grid_BTGG, size=(side, side), mode="bilinear", antialias=True).flatten(2).mT


def check_inner(spec: DistillSpec, teacher: LiveAnswers) -> None:
    """Refuse a teacher that does not compute what the recipe wants to learn from.

    Raises:
        InputError: The message names the summand.
    """
    network = teacher.network
    seen = seen_by(teacher, teacher.example())
    name = "minivit" if "minivit" in spec.inner_weights else next(iter(spec.inner_weights))
    place = f"train.distill.{'inner' if spec.inner != 'none' else 'terms'}"
    if is_plain_vit(network):
        found = seen.blocks[seen.complete - 1] if seen.complete else None
        rule = f"{name} compares patches before any of them leaves, but the teacher's leave in its first block"
    else:
        found = seen.final
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        rule = f"{name} compares a square grid of patches, but the teacher's features have the shape {shape}"
    if not isinstance(found, Tensor) or patches_of(found, network) is None:
        raise InputError(
            rule, field=place, value=name, remedy="choose a ViT that keeps its patches, or a CNN, as teacher"
        )
    if name == "minivit" and not seen.parts:
        raise InputError(
            "minivit compares queries, keys and values, but the teacher has none", field=place, value=name,
            remedy="choose a ViT as teacher, or tokens or manifold",
        )  # fmt: skip


def _num_prefix(network: nn.Module, count: int) -> int:
    if isinstance(network, VisionTransformer):
        return network.architecture.num_prefix_tokens
    told = getattr(network, "num_prefix_tokens", None)
    return int(told) if told is not None else count - math.isqrt(count) ** 2


def _keep_tokens(seen: Seen, index: int, num_tokens: int | None, *module_inputs_output: Any) -> None:
    output = module_inputs_output[-1]
    x_BND, size_BN = output if isinstance(output, tuple) else (output, None)
    if num_tokens not in {None, x_BND.shape[1]}:
        return
    if size_BN is not None and bool((size_BN <= 0).any()):  # a place without a token: others may have moved
        return
    seen.blocks[index] = x_BND


def _attention_of(block: nn.Module) -> nn.Module | None:
    """What computes queries, keys and values: our attention, which also returns them, or timm's projection."""
    attention = getattr(block, "attn", None)
    found = attention if isinstance(block, Block) else getattr(attention, "qkv", None)
    return found if isinstance(found, nn.Module) else None


def _parts(output: Any) -> Parts:
    if isinstance(output, tuple):
        state = output[1]
        assert isinstance(state, AttentionState)
        q, k, v = (one.transpose(1, 2).flatten(2) for one in (state.q_BHNK, state.k_BHNK, state.v_BHNK))
    else:
        q, k, v = output.chunk(3, dim=-1)
    return q, k, v
