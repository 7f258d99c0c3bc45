"""The dense network before anything is removed from it."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from vitsearch.config.base import Spec

LATER_DEFAULTS: dict[str, object] = {
    "patch_embedding": "linear", "attention": "softmax", "class_attention_blocks": 0, "share_blocks": 1,
    "distillation_tokens": 1, "pooling_branches": False,
}  # fmt: skip
STEM_KERNEL = 3  # side of the convolutions of conv_stem
POOLING_WINDOWS = ((1, 3), (3, 1), (1, 5), (5, 1))  # of the branches of pooling_branches, in patches


class Architecture(Spec):
    """A plain Vision Transformer in timm's sense.

    Attributes:
        image_size: Side of the square input in pixels.
        in_chans: Input channels.
        num_classes: Outputs of the classifier; 0 leaves the head out.
        patch_size: Side of a square patch in pixels; divides ``image_size``.
        depth: Transformer blocks.
        width: Embedding dimension.
        heads: Attention heads; divides ``width``.
        mlp_ratio: Hidden units of an MLP relative to ``width``.
        class_token: Whether a CLS token leads the sequence.
        distilled: Whether distillation tokens follow, each with a head of its own (DeiT).
        pool: What the head reads: the CLS ``token`` or the ``avg`` of the patches.
        pre_norm: LayerNorm before the first block (CLIP).
        patch_bias: Whether the patch projection has a bias.
        layer_scale: Whether residual branches have a learned scale (CaiT).
        attention: ``softmax``, or ``lsa``: locality self-attention, for little data.
        patch_embedding: ``linear``; ``spt``: shifted patch tokenisation, for little data; or ``conv_stem``: 3 x 3
            convolutions of stride 2 before the projection, as many as halve a patch to one pixel.
        class_attention_blocks: How many of the last blocks are class-attention blocks (CaiT; 2 there): only the
            class tokens attend and change. In the blocks before, the patches are among themselves.
        share_blocks: How many consecutive blocks share the weights of attention and MLP (MiniViT; 2 there), each
            with norms and a mixing of heads of its own.
        distillation_tokens: How many follow under ``distilled``: one for each teacher (DeiT 1, CivT 2).
        pooling_branches: Whether blocks average neighbouring patches beside their MLP, and scale and shift what
            they add (BinaryViT).
    """

    image_size: Annotated[int, Field(ge=1, le=4096)]
    in_chans: Annotated[int, Field(ge=1, le=64)]
    num_classes: Annotated[int, Field(ge=0, le=1_000_000)]
    patch_size: Annotated[int, Field(ge=1, le=1024)]
    depth: Annotated[int, Field(ge=1, le=256)]
    width: Annotated[int, Field(ge=1, le=16384)]
    heads: Annotated[int, Field(ge=1, le=1024)]
    mlp_ratio: Annotated[float, Field(gt=0, le=64)] = 4.0
    class_token: bool = True
    distilled: bool = False
    pool: Literal["token", "avg"] = "token"
    pre_norm: bool = False
    patch_bias: bool = True
    layer_scale: bool = False
    attention: Literal["softmax", "lsa"] = "softmax"
    patch_embedding: Literal["linear", "spt", "conv_stem"] = "linear"
    class_attention_blocks: Annotated[int, Field(ge=0, le=256)] = 0
    share_blocks: Annotated[int, Field(ge=1, le=256)] = 1
    distillation_tokens: Annotated[int, Field(ge=1, le=2)] = 1
    pooling_branches: bool = False

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Fields that came later are left out at their defaults, so that older candidates keep their hash."""
        fields: dict[str, Any] = write(self)
        return {name: value for name, value in fields.items() if LATER_DEFAULTS.get(name) != value}

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        if self.width % self.heads:
            raise ValueError(
                f"width must be divisible by heads, but got width={self.width}, heads={self.heads}; "
                f"choose heads from {divisors(self.width)}"
            )
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size must be divisible by patch_size, but got image_size={self.image_size}, "
                f"patch_size={self.patch_size}; choose patch_size from {divisors(self.image_size)}"
            )
        if self.distilled and not self.class_token:
            raise ValueError("distilled=true needs class_token=true; set it, or distilled=false")
        if self.pool == "token" and not self.class_token:
            raise ValueError("pool=token needs class_token=true; choose pool=avg")
        if self.distilled and self.pool != "token":
            raise ValueError("distilled=true reads both tokens; choose pool=token")
        if self.distillation_tokens > 1 and not self.distilled:
            raise ValueError(
                f"distillation_tokens={self.distillation_tokens} needs distilled=true; set it, or leave "
                "distillation_tokens at 1"
            )
        if self.mlp_units < 1:
            raise ValueError(f"mlp_ratio must leave at least one hidden unit, but got {self.mlp_ratio}")
        self._stem_fits()
        self._blocks_fit()
        return self

    def _stem_fits(self) -> None:
        if self.patch_embedding != "conv_stem":
            return
        if not is_stem_patch(self.patch_size):
            fitting = [k for k in divisors(self.image_size) if is_stem_patch(k) and k < self.image_size]
            raise ValueError(
                f"patch_embedding=conv_stem halves a patch until one pixel is left, but got "
                f"patch_size={self.patch_size}; choose "
                + (f"patch_size from {fitting}" if fitting else "patch_embedding=linear")
            )
        if self.num_patches == 1:
            raise ValueError(
                f"patch_embedding=conv_stem normalises over patches, but got a single one "
                f"(image_size={self.image_size}, patch_size={self.patch_size}); choose a smaller patch_size"
            )

    def _blocks_fit(self) -> None:
        if self.class_attention_blocks >= self.depth:
            raise ValueError(
                f"class_attention_blocks must leave a block of self-attention before them, but got "
                f"class_attention_blocks={self.class_attention_blocks}, depth={self.depth}; "
                f"choose at most {self.depth - 1}"
            )
        if self.class_attention_blocks and self.pool != "token":
            raise ValueError(
                "class_attention_blocks gather the image in the CLS token, but got pool=avg; choose pool=token"
            )
        if self.depth % self.share_blocks:
            raise ValueError(
                f"depth must be divisible by share_blocks, but got depth={self.depth}, "
                f"share_blocks={self.share_blocks}; choose share_blocks from {divisors(self.depth)}"
            )
        if self.share_blocks > 1 and self.class_attention_blocks:
            raise ValueError(
                f"blocks that share weights are all of one kind, but got share_blocks={self.share_blocks}, "
                f"class_attention_blocks={self.class_attention_blocks}; set share_blocks=1 or "
                f"class_attention_blocks=0"
            )
        self._branches_fit()

    def _branches_fit(self) -> None:
        others: dict[str, tuple[object, object]] = {
            "layer_scale": (self.layer_scale, False),  # residuals are scaled already
            "share_blocks": (self.share_blocks, 1),
            "class_attention_blocks": (self.class_attention_blocks, 0),
        }
        wrong = [f"{name}={value}" for name, (value, plain) in others.items() if value != plain]
        if self.pooling_branches and wrong:
            plain = ", ".join(f"{name}={plain}" for name, (_, plain) in others.items())
            raise ValueError(
                f"pooling_branches makes blocks of its own kind, but got {', '.join(wrong)}; set {plain}, or "
                "pooling_branches=False"
            )

    def resolved(self) -> Architecture:
        """The canonical form: of all ratios that give the same hidden units, the plainest."""
        return self.model_copy(update={"mlp_ratio": mlp_ratio_of(self.mlp_units, self.width)})

    @property
    def variants(self) -> list[str]:
        """A few words for what is not plain: ``conv_stem``, ``lsa``, ``2 class blocks``, ``weights x2``."""
        words: list[str] = [
            name for name in (self.patch_embedding, self.attention) if name not in {"linear", "softmax"}
        ]
        if self.class_attention_blocks:
            words.append(f"{self.class_attention_blocks} class blocks")
        if self.share_blocks > 1:
            words.append(f"weights x{self.share_blocks}")
        if self.pooling_branches:
            words.append("pooling branches")
        return words

    @property
    def num_patches(self) -> int:
        """Patch tokens."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def patch_features(self) -> int:
        """Values from which one patch token is projected."""
        if self.patch_embedding == "conv_stem":
            return self.stem_channels[-1]
        views = 5 if self.patch_embedding == "spt" else 1  # the image and its four diagonal shifts
        return views * self.in_chans * self.patch_size**2

    @property
    def stem_channels(self) -> tuple[int, ...]:
        """Outputs of each convolution of stride 2: D at the last, half of that at the one before, and so on."""
        if self.patch_embedding != "conv_stem":
            return ()
        convolutions = self.patch_size.bit_length() - 1
        return tuple(max(1, self.width >> halvings) for halvings in reversed(range(convolutions)))

    @property
    def self_attention_part(self) -> Architecture:
        """The blocks where token reducers act, with the tokens there: before class attention, only patches."""
        if not self.class_attention_blocks:
            return self
        return self.model_copy(
            update={
                "depth": self.depth - self.class_attention_blocks, "class_attention_blocks": 0,
                "class_token": False, "distilled": False, "distillation_tokens": 1, "pool": "avg",
            }
        )  # fmt: skip

    @property
    def num_distillation_tokens(self) -> int:
        """Distillation tokens: as many classifiers stand beside the first."""
        return self.distillation_tokens if self.distilled else 0

    @property
    def num_prefix_tokens(self) -> int:
        """CLS and distillation tokens."""
        return int(self.class_token) + self.num_distillation_tokens

    @property
    def num_tokens(self) -> int:
        """Tokens that enter the first block."""
        return self.num_patches + self.num_prefix_tokens

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads

    @property
    def mlp_units(self) -> int:
        """Hidden units of an MLP, rounded down as timm does."""
        return int(self.width * self.mlp_ratio)


def mlp_ratio_of(mlp_units: int, width: int) -> float:
    """The ratio from which ``Architecture.mlp_units`` gives these units back; a plain quotient can lose one."""
    ratio = mlp_units / width
    return ratio if int(width * ratio) == mlp_units else math.nextafter(ratio, math.inf)


def is_stem_patch(patch_size: int) -> bool:
    """Whether convolutions of stride 2 can bring a patch down to one pixel: a power of two, from 2."""
    return patch_size > 1 and patch_size.bit_count() == 1


def divisors(number: int) -> list[int]:
    """All divisors of ``number``, ascending."""
    return [k for k in range(1, number + 1) if number % k == 0]
