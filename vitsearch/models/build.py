"""From a candidate's architecture to a network, and from a timm network to an architecture."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vitsearch.candidate import Architecture, Candidate, mlp_ratio_of
from vitsearch.models.vit import VisionTransformer


def build_dense(
    architecture: Architecture, *, drop_path: float = 0.0, dropout: float = 0.0, pos_embed_std: float = 0.02
) -> VisionTransformer:
    """The network before compression, freshly initialised from torch's global generator.

    Args:
        architecture: Its shape.
        drop_path: Stochastic depth rate of the last block.
        dropout: Dropout rate after the projections.
        pos_embed_std: Deviation of the initial position embeddings.
    """
    return VisionTransformer(architecture, drop_path=drop_path, dropout=dropout, pos_embed_std=pos_embed_std)


def build_pruned(candidate: Candidate) -> VisionTransformer:
    """The smaller dense network that structured pruning leaves, weights not yet set."""
    return VisionTransformer(candidate.pruned_architecture, widths=candidate.widths)


def architecture_of_timm(model: nn.Module) -> Architecture:
    """The architecture of a timm ``VisionTransformer``, where it is a plain one.

    Plain is what ``Architecture`` can say in full, so that costs and parameter names are timm's to the last digit:

    - square images, cut into patches by one convolution (no ResNet or ConvNet stem);
    - learned absolute position embeddings, one for each token, prefix tokens included (no rotary or relative
      positions, and not DeiT III, whose CLS token has none);
    - pre-norm blocks of attention and MLP, one after the other (no parallel and no post-norm blocks), with biases
      in all their linear layers, without normalised queries and keys, and with GELU (not QuickGELU);
    - one LayerNorm at the end, and a linear head on CLS, on the distillation token as well, or on the average of
      the patches (no registers, no attention pooling).

    The LayerNorms of timm's CLIP networks add 1e-5 to the variance where vitsearch's add 1e-6, which costs nothing
    and changes no parameter. ``tests/golden/test_timm_costs.py`` sorts every name at 224 pixels by this rule.

    Raises:
        ValueError: The model is not plain; the message says in what.
    """
    m: Any = model
    kinds = [type(m.patch_embed), type(m.blocks[0]), type(getattr(m.blocks[0], "attn", None))]
    kinds.append(type(getattr(m.blocks[0], "mlp", None)))
    names = [kind.__name__ for kind in kinds]
    if names != ["PatchEmbed", "Block", "Attention", "Mlp"] or m.attn_pool is not None or m.num_reg_tokens:
        raise ValueError(
            f"a plain VisionTransformer has PatchEmbed, Block, Attention and Mlp, no registers and no pooling "
            f"head, but got {names}; choose a vit_* or deit_* name without a suffix of its own"
        )
    height, width = m.patch_embed.img_size
    block = m.blocks[0]
    activation = type(block.mlp.act).__name__
    if activation != "GELU":
        raise ValueError(f"a plain VisionTransformer has GELU, but got {activation}")
    if height != width or not isinstance(m.norm, nn.LayerNorm) or not isinstance(m.fc_norm, nn.Identity):
        raise ValueError("a plain VisionTransformer has square images and one final LayerNorm")
    found = Architecture(
        image_size=height,
        in_chans=m.patch_embed.proj.in_channels,
        num_classes=m.num_classes,
        patch_size=m.patch_embed.patch_size[0],
        depth=len(m.blocks),
        width=m.embed_dim,
        heads=block.attn.num_heads,
        mlp_ratio=mlp_ratio_of(block.mlp.fc1.out_features, m.embed_dim),
        class_token=m.cls_token is not None,
        distilled=getattr(m, "dist_token", None) is not None,
        pool=m.global_pool,
        pre_norm=not isinstance(m.norm_pre, nn.Identity),
        patch_bias=m.patch_embed.proj.bias is not None,
        layer_scale=not isinstance(block.ls1, nn.Identity),
    )
    with torch.device("meta"):
        ours = _shapes(build_dense(found))
    different = sorted({name for name, _ in ours.items() ^ _shapes(model).items()})
    if different:  # position embeddings without the prefix, no qkv bias, normalised queries, ...
        raise ValueError(
            f"a plain VisionTransformer has the parameters of vitsearch's, but these differ: {different[:3]}"
        )
    return found


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}
