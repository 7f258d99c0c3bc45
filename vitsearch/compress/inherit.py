"""Weights of a trained network for a smaller one, or for one of another shape.

What is kept is what matters most in the source: blocks by how much they change their input, heads and hidden units
by the norm of their weights, channels by the norm of everything that reads or writes them. Where the student is
larger than the source, the rest keeps its own initial weights.

A class-attention block takes over a block of self-attention like any other, but rather one of its kind. Blocks
that share their weights get those of the block that the first of them takes over; each gets norms of its own. A
convolutional stem is taken over from another one only.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vitsearch.candidate import Architecture
from vitsearch.compress.weights.magnitude import head_scores, mlp_unit_scores, strongest
from vitsearch.models import (
    Block,
    ConvStem,
    MultiplexedBlock,
    PoolingBlock,
    RepeatedBlock,
    VisionTransformer,
    build_dense,
)
from vitsearch.models.spt import ShiftedPatchEmbed


@torch.no_grad()
def inherit(student: VisionTransformer, source: VisionTransformer, images_BCHW: Tensor) -> None:
    """Give ``student`` the weights of ``source``, in place.

    Queries are rescaled where heads become narrower, so that logits keep their size. The classifier is taken over
    where both have the same number of classes.

    Args:
        student: A dense network.
        source: A dense trained network of any shape.
        images_BCHW: Normalised images of the student's data, on which blocks are judged.
    """
    full = adapted(source, student.architecture).to(images_BCHW.device)
    channels = strongest(channel_scores(full), min(full.architecture.width, student.architecture.width))
    pairs = paired_blocks(student.architecture, full.architecture, block_influence(full, images_BCHW))
    C = len(channels)
    for name in ("cls_token", "dist_token", "pos_embed"):
        ours, theirs = getattr(student, name), getattr(full, name)
        if ours is not None and theirs is not None:
            ours[..., :C] = theirs[..., channels]
    _inherit_patches(student, full, channels)
    for number, old in pairs:
        _inherit_block(_block(student, number), _block(full, old), channels)
    for name in ("norm_pre", "norm"):
        _copy_norm(getattr(student, name), getattr(full, name), channels)
    if student.architecture.num_classes == source.architecture.num_classes:
        for name in student.head_names:
            ours, theirs = getattr(student, name), getattr(full, name)
            if isinstance(ours, torch.nn.Linear) and isinstance(theirs, torch.nn.Linear):
                ours.weight[:, :C] = theirs.weight[:, channels]
                ours.bias.copy_(theirs.bias)


def paired_blocks(student: Architecture, source: Architecture, influence: Tensor) -> list[tuple[int, int]]:
    """Numbers from 0 of blocks of a student and of the source's blocks that they take over, by their influence.

    Class-attention blocks go to such blocks, the last to the last, if both have them. Groups that share weights go
    to groups, if they are of one length.
    """
    both = min(student.class_attention_blocks, source.class_attention_blocks)
    ours = student.depth - (student.class_attention_blocks if both else 0)
    theirs = source.depth - (source.class_attention_blocks if both else 0)
    share = student.share_blocks if student.share_blocks == source.share_blocks else 1
    groups = strongest(influence[:theirs].view(-1, share).sum(dim=1), min(ours, theirs) // share)
    found = list(enumerate(group * share + i for group in groups.tolist() for i in range(share)))
    return found + [(student.depth - i, source.depth - i) for i in range(both, 0, -1)]


@torch.no_grad()
def adapted(source: VisionTransformer, like: Architecture) -> VisionTransformer:
    """``source`` for the images, patches, prefix tokens and classes of another architecture; its own blocks.

    Position embeddings are interpolated to the new grid; patch kernels are resampled so that they answer resized
    patches alike (FlexiViT: Beyer et al., 2023, Section 3.4). Where the number of channels differs, every
    channel gets its share of the sum.
    """
    from timm.layers import resample_abs_pos_embed, resample_patch_embed

    taken = {
        "image_size", "patch_size", "in_chans", "num_classes", "class_token", "distilled", "distillation_tokens",
        "pool",
    }  # fmt: skip
    if source.architecture.patch_embedding == "conv_stem" != like.patch_embedding:
        taken.add("patch_embedding")  # another kind keeps its own, and may have patches that no stem can have
    update = {name: getattr(like, name) for name in taken}
    if not like.class_token:
        update["class_attention_blocks"] = 0  # nothing is left that could attend there alone
    architecture = source.architecture.model_copy(update=update)
    found = build_dense(architecture).eval()
    state = {name: value.clone() for name, value in source.state_dict().items()}
    if architecture.class_attention_blocks < source.architecture.class_attention_blocks:
        for name in [name for name in state if ".attn.q." in name]:
            state[name.replace(".q.", ".qkv.")] = torch.cat([state[name], state[name.replace(".q.", ".kv.")]])
    first = {"linear": "patch_embed.proj.weight", "conv_stem": "patch_embed.convs.0.weight"}
    reader = first.get(source.architecture.patch_embedding)  # reads the image, channel by channel
    if reader is not None and like.in_chans != source.architecture.in_chans:
        state[reader] = state[reader].sum(dim=1, keepdim=True).expand(-1, like.in_chans, -1, -1) / like.in_chans
    if source.architecture.patch_embedding == "linear":
        state[first["linear"]] = resample_patch_embed(state[first["linear"]], [like.patch_size, like.patch_size])
    prefix, patches = _positions(source, state)
    side = like.image_size // like.patch_size
    patches = resample_abs_pos_embed(patches, [side, side], num_prefix_tokens=0)
    own = found.pos_embed[:, : architecture.num_prefix_tokens].clone()
    shared = min(own.shape[1], prefix.shape[1])
    own[:, :shared] = prefix[:, :shared]
    state["pos_embed"] = torch.cat([own, patches], dim=1)
    if found.dist_token is not None and "dist_token" in state:
        both = min(found.dist_token.shape[1], state["dist_token"].shape[1])
        state["dist_token"] = torch.cat([state["dist_token"][:, :both], found.dist_token[:, both:]], dim=1)
    mine = found.state_dict()
    fitting = {name: value for name, value in state.items() if name in mine and value.shape == mine[name].shape}
    found.load_state_dict(fitting, strict=False)
    return found


def channel_scores(model: VisionTransformer) -> Tensor:
    """score_c = norm of all weights that write embedding channel c or read it; shape (D,)."""
    squared = model.patch_embed.proj.weight.square().flatten(1).sum(dim=1)
    for block in model.blocks:
        assert isinstance(block, Block)
        if isinstance(block, RepeatedBlock):
            continue
        for writer in (block.attn.proj, block.mlp.fc2):
            squared = squared + writer.weight.square().sum(dim=1)
        for read in (block.attn.joined_inputs()[0], block.mlp.fc1.weight):
            squared = squared + read.square().sum(dim=0)
    return squared.sqrt()


@torch.inference_mode()
def block_influence(model: VisionTransformer, images_BCHW: Tensor) -> Tensor:
    """score_l = 1 - mean cos(x_l, x_{l+1}) of the tokens that enter and leave block l; shape (depth,).

    A block that turns its input little can be spared (Men et al., 2024, *ShortGPT*, Eq. 1).
    """
    scores: list[Tensor] = []
    x_BND = model.norm_pre(model.embed(images_BCHW))
    for block in model.blocks:
        y_BND, _ = block(x_BND)
        scores.append(1 - F.cosine_similarity(x_BND, y_BND, dim=-1).mean())
        x_BND = y_BND
    return torch.stack(scores).clone()


def _positions(source: VisionTransformer, state: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    prefix = source.architecture.num_prefix_tokens
    return state["pos_embed"][:, :prefix], state["pos_embed"][:, prefix:]


def _block(model: VisionTransformer, index: int) -> Block:
    block = model.blocks[index]
    assert isinstance(block, Block)
    return block


def _inherit_patches(student: VisionTransformer, full: VisionTransformer, channels: Tensor) -> None:
    """The projection of patches; another kind of tokenisation keeps its own."""
    ours, theirs = student.patch_embed, full.patch_embed
    if isinstance(ours, ConvStem) and isinstance(theirs, ConvStem):
        _inherit_stem(ours, theirs, channels)
        return
    if ours.proj.weight.shape[1:] != theirs.proj.weight.shape[1:]:
        return
    ours.proj.weight[: len(channels)] = theirs.proj.weight[channels]
    if ours.proj.bias is not None and theirs.proj.bias is not None:
        ours.proj.bias[: len(channels)] = theirs.proj.bias[channels]
    if isinstance(ours, ShiftedPatchEmbed) and isinstance(theirs, ShiftedPatchEmbed):
        ours.norm.load_state_dict(theirs.norm.state_dict())


def _inherit_stem(ours: ConvStem, theirs: ConvStem, channels: Tensor) -> None:
    """The strongest outputs of each convolution, reading those kept of the one before."""
    assert len(ours.convs) == len(theirs.convs), "adapted to the same patches"
    inputs = None
    for new, old in [*zip(ours.convs, theirs.convs, strict=True), (ours.proj, theirs.proj)]:
        assert isinstance(new, torch.nn.Conv2d)
        assert isinstance(old, torch.nn.Conv2d)
        inputs = torch.arange(old.in_channels, device=channels.device) if inputs is None else inputs
        count = min(new.out_channels, old.out_channels)
        outputs = channels if new is ours.proj else strongest(old.weight.square().flatten(1).sum(dim=1), count)
        new.weight[: len(outputs), : len(inputs)] = old.weight[outputs][:, inputs]
        if new.bias is not None and old.bias is not None:
            new.bias[: len(outputs)] = old.bias[outputs]
        inputs = outputs


def _inherit_block(new: Block, old: Block, channels: Tensor) -> None:
    heads = strongest(head_scores(old), min(old.attn.num_heads, new.attn.num_heads))
    if not isinstance(new, RepeatedBlock):
        _inherit_weights(new, old, channels, heads)
    if isinstance(new, MultiplexedBlock) and isinstance(old, MultiplexedBlock):
        for ours, theirs in ((new.mixing.before, old.mixing.before), (new.mixing.after, old.mixing.after)):
            ours.weight[: len(heads), : len(heads)] = theirs.weight[heads][:, heads]
    for name in ("norm1", "norm2"):
        _copy_norm(getattr(new, name), getattr(old, name), channels)
    scales: list[tuple[torch.nn.Module, torch.nn.Module]] = [(new.ls1, old.ls1), (new.ls2, old.ls2)]
    if isinstance(new, PoolingBlock) and isinstance(old, PoolingBlock):
        scales += zip(new.branches.affines, old.branches.affines, strict=True)
    for scale, trained in scales:
        _copy_scale(scale, trained, channels)


def _copy_scale(new: torch.nn.Module, old: torch.nn.Module, channels: Tensor) -> None:
    """Scale and shift; where the source has none the scale is 1, so that the block does what it did."""
    C = len(channels)
    gamma, trained = getattr(new, "gamma", None), getattr(old, "gamma", None)
    if gamma is not None:
        gamma[:C] = 1 if trained is None else trained[channels]
    beta, trained = getattr(new, "beta", None), getattr(old, "beta", None)
    if beta is not None and trained is not None:
        beta[:C] = trained[channels]


def _inherit_weights(new: Block, old: Block, channels: Tensor, heads: Tensor) -> None:
    """Attention and MLP; ``heads`` are those of the old block that stay."""
    C = len(channels)
    our_rows, our_biases = new.attn.joined_inputs()  # copies, written back below
    ours = our_rows.view(3, new.attn.num_heads, new.attn.head_dim, -1)
    our_bias = our_biases.view(3, new.attn.num_heads, new.attn.head_dim)
    their_rows, their_biases = old.attn.joined_inputs()
    theirs = their_rows.view(3, old.attn.num_heads, old.attn.head_dim, -1)
    their_bias = their_biases.view(3, old.attn.num_heads, old.attn.head_dim)
    our_proj = new.attn.proj.weight.view(-1, new.attn.num_heads, new.attn.head_dim)
    their_proj = old.attn.proj.weight.view(-1, old.attn.num_heads, old.attn.head_dim)
    K = min(new.attn.head_dim, old.attn.head_dim)
    scale = math.sqrt(new.attn.head_dim / old.attn.head_dim)  # q k / sqrt(K) stays as it was
    for number, head in enumerate(heads.tolist()):
        qk = strongest(theirs[0, head].norm(dim=1) * theirs[1, head].norm(dim=1), K)
        v = strongest(theirs[2, head].norm(dim=1) * their_proj[:, head].norm(dim=0), K)
        for part, (dims, factor) in enumerate(((qk, scale), (qk, 1.0), (v, 1.0))):
            ours[part, number, :K, :C] = theirs[part, head][dims][:, channels] * factor
            our_bias[part, number, :K] = their_bias[part, head, dims] * factor
        our_proj[:C, number, :K] = their_proj[channels, head][:, v]
    new.attn.set_inputs(our_rows, our_biases)
    new.attn.proj.bias[:C] = old.attn.proj.bias[channels]
    units = strongest(mlp_unit_scores(old), min(old.mlp.fc1.out_features, new.mlp.fc1.out_features))
    M = len(units)
    new.mlp.fc1.weight[:M, :C] = old.mlp.fc1.weight[units][:, channels]
    new.mlp.fc1.bias[:M] = old.mlp.fc1.bias[units]
    new.mlp.fc2.weight[:C, :M] = old.mlp.fc2.weight[channels][:, units]
    new.mlp.fc2.bias[:C] = old.mlp.fc2.bias[channels]


def _copy_norm(ours: torch.nn.Module, theirs: torch.nn.Module, channels: Tensor) -> None:
    if isinstance(ours, torch.nn.LayerNorm) and isinstance(theirs, torch.nn.LayerNorm):
        ours.weight[: len(channels)] = theirs.weight[channels]
        ours.bias[: len(channels)] = theirs.bias[channels]
