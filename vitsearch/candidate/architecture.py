"""The dense network before anything is removed from it."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from vitsearch.config.base import Spec

LATER_DEFAULTS: dict[str, object] = {"patch_embedding": "linear", "attention": "softmax"}


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
        distilled: Whether a distillation token and head follow (DeiT).
        pool: What the head reads: the CLS ``token`` or the ``avg`` of the patches.
        pre_norm: LayerNorm before the first block (CLIP).
        patch_bias: Whether the patch projection has a bias.
        layer_scale: Whether residual branches have a learned scale (CaiT).
        attention: ``softmax``, or ``lsa``: locality self-attention, for little data.
        patch_embedding: ``linear``, or ``spt``: shifted patch tokenisation, for little data.
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
    patch_embedding: Literal["linear", "spt"] = "linear"

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
        if self.pool == "token" and not self.class_token:
            raise ValueError("pool=token needs class_token=true; choose pool=avg")
        if self.distilled and not self.class_token:
            raise ValueError("distilled=true needs class_token=true")
        if self.distilled and self.pool != "token":
            raise ValueError("distilled=true reads both tokens; choose pool=token")
        if self.mlp_units < 1:
            raise ValueError(f"mlp_ratio must leave at least one hidden unit, but got {self.mlp_ratio}")
        return self

    def resolved(self) -> Architecture:
        """The canonical form: of all ratios that give the same hidden units, the plainest."""
        return self.model_copy(update={"mlp_ratio": mlp_ratio_of(self.mlp_units, self.width)})

    @property
    def num_patches(self) -> int:
        """Patch tokens."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def patch_features(self) -> int:
        """Values from which one patch token is projected."""
        views = 5 if self.patch_embedding == "spt" else 1  # the image and its four diagonal shifts
        return views * self.in_chans * self.patch_size**2

    @property
    def num_prefix_tokens(self) -> int:
        """CLS and distillation tokens."""
        return int(self.class_token) + int(self.distilled)

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


def divisors(number: int) -> list[int]:
    """All divisors of ``number``, ascending."""
    return [k for k in range(1, number + 1) if number % k == 0]
