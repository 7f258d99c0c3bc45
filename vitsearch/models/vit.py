"""The plain Vision Transformer, state-dict compatible with timm's.

Shape suffixes: B batch, N tokens, D width, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from timm.layers import DropPath, LayerScale, Mlp, PatchEmbed, trunc_normal_
from torch import Tensor, nn

from vitsearch.candidate import Architecture, BlockWidths, Sparsity
from vitsearch.models.attention import Attention, AttentionState, log_size_bias
from vitsearch.models.conv_stem import ConvStem
from vitsearch.models.spt import ShiftedPatchEmbed

LAYER_NORM_EPS = 1e-6
LAYER_SCALE_INIT = 1e-5
HEADS = ("head", "head_dist", "head_dist2")  # the classifier of each prefix token; timm knows the first two


class TokenState(NamedTuple):
    """What goes from block to block.

    Attributes:
        x_BND: Tokens, prefix tokens first.
        size_BN: How many patches each token stands for; None while every token stands for one. Where images keep
            different numbers of tokens, places without one have size 0: nothing attends to them.
        memory: What routes hand on to the next one; None at the first block.
    """

    x_BND: Tensor
    size_BN: Tensor | None = None
    memory: object = None


class TokenReducer(Protocol):
    """Removes tokens between the attention and the MLP of one block.

    Implementations live in ``vitsearch.compress.tokens``; the model only calls them. One that learns is an
    ``nn.Module`` too.
    """

    def __call__(
        self, x_BND: Tensor, attention: AttentionState, size_BN: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Reduce.

        Args:
            x_BND: Tokens after the attention's residual, prefix tokens first.
            attention: What the block's attention computed.
            size_BN: As in ``TokenState``.

        Returns:
            The remaining tokens (B, N', D) and their sizes (B, N'), or None where sizes are not tracked.
        """
        ...


class TokenRoute(ABC):
    """Runs one block itself: on tokens of its choice, or with something before or after it."""

    @abstractmethod
    def run(self, block: Block, state: TokenState) -> TokenState:
        """Run ``block``.

        Args:
            block: By calling it, or through ``attend`` and ``mix_channels``.
            state: What the block before left.
        """


class Block(nn.Module):
    """One pre-norm transformer block with an optional token reducer in its middle.

    Args:
        architecture: The network's shape.
        widths: Sizes of this block, after pruning.
        drop_path: Stochastic depth rate of this block.
        dropout: Dropout rate after the projections.
    """

    def __init__(self, architecture: Architecture, widths: BlockWidths, drop_path: float, dropout: float) -> None:
        super().__init__()
        dim = widths.width
        scale = architecture.layer_scale
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn = Attention(
            dim, widths.heads, architecture.head_dim, dropout, qk_dim=widths.qk_dim, v_dim=widths.v_dim,
            hides_self=architecture.attention == "lsa",
        )  # fmt: skip
        self.ls1 = LayerScale(dim, init_values=LAYER_SCALE_INIT) if scale else nn.Identity()
        self.drop_path1 = DropPath(drop_path) if drop_path else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(in_features=dim, hidden_features=widths.mlp_units, drop=dropout)
        self.ls2 = LayerScale(dim, init_values=LAYER_SCALE_INIT) if scale else nn.Identity()
        self.drop_path2 = DropPath(drop_path) if drop_path else nn.Identity()
        self.reducer: TokenReducer | TokenRoute | None = None  # a module only when it learns

    def run(self, state: TokenState) -> TokenState:
        """The block as its reducer wants it."""
        if isinstance(self.reducer, TokenRoute):
            return self.reducer.run(self, state)
        x_BND, size_BN = self(state.x_BND, state.size_BN)
        return TokenState(x_BND, size_BN, state.memory)

    def forward(self, x_BND: Tensor, size_BN: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Attend, reduce, and mix channels; returns tokens and their sizes."""
        x_BND, state = self.attend(x_BND, size_BN)
        if self.reducer is not None and not isinstance(self.reducer, TokenRoute):
            x_BND, size_BN = self.reducer(x_BND, state, size_BN)
        return self.mix_channels(x_BND), size_BN

    def attend(self, x_BND: Tensor, size_BN: Tensor | None) -> tuple[Tensor, AttentionState]:
        """The first half: tokens after the attention's residual, and what the attention computed."""
        mixed_BND, state = self.attn(self.norm1(x_BND), log_size_bias(size_BN))
        return x_BND + self.drop_path1(self.ls1(mixed_BND)), state

    def mix_channels(self, x_BND: Tensor) -> Tensor:
        """The second half: tokens after the MLP's residual."""
        return x_BND + self.drop_path2(self.ls2(self.mlp(self.norm2(x_BND))))


def _blocks(
    a: Architecture, widths: Sequence[BlockWidths], rates: Sequence[float], dropout: float
) -> Iterator[Block]:
    # these build on Block, which stands here
    from vitsearch.models.class_attention import ClassAttentionBlock, PatchBlock
    from vitsearch.models.multiplexing import MultiplexedBlock, RepeatedBlock
    from vitsearch.models.pooling_branches import PoolingBlock

    owner: MultiplexedBlock | None = None
    for index, (w, rate) in enumerate(zip(widths, rates, strict=True)):
        if owner is not None and index % a.share_blocks:
            yield RepeatedBlock(owner, a, w, rate, dropout)
        elif a.share_blocks > 1:
            owner = MultiplexedBlock(a, w, rate, dropout)
            yield owner
        elif index >= a.depth - a.class_attention_blocks:
            yield ClassAttentionBlock(a, w, rate, dropout)
        elif a.pooling_branches:
            yield PoolingBlock(a, w, rate, dropout)
        else:
            yield (PatchBlock if a.class_attention_blocks else Block)(a, w, rate, dropout)


def _patch_embedding(a: Architecture, dim: int) -> Any:
    if a.patch_embedding == "conv_stem":
        return ConvStem(a, dim)
    if a.patch_embedding == "spt":
        return ShiftedPatchEmbed(a.in_chans, a.patch_size, dim, bias=a.patch_bias, eps=LAYER_NORM_EPS)
    return PatchEmbed(
        img_size=a.image_size, patch_size=a.patch_size, in_chans=a.in_chans, embed_dim=dim, bias=a.patch_bias
    )


class VisionTransformer(nn.Module):
    """A plain ViT; parameter names and arithmetic equal timm's ``VisionTransformer``.

    Args:
        architecture: The dense network's shape, without the blocks that pruning drops.
        widths: Sizes of each block after pruning; the architecture's own by default.
        drop_path: Stochastic depth rate of the last block, rising linearly from 0 at the first.
        dropout: Dropout rate after the projections.
        pos_embed_std: Deviation of the initial position embeddings.
    """

    head: nn.Module

    def __init__(
        self,
        architecture: Architecture,
        *,
        widths: Sequence[BlockWidths] | None = None,
        drop_path: float = 0.0,
        dropout: float = 0.0,
        pos_embed_std: float = 0.02,
    ) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.widths = tuple(widths or Sparsity().widths(a))
        dim = self.widths[0].width
        self.patch_embed = _patch_embedding(a, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim)) if a.class_token else None
        dist = a.num_distillation_tokens
        self.dist_token = nn.Parameter(torch.zeros(1, dist, dim)) if dist else None
        self.pos_embed = nn.Parameter(torch.zeros(1, a.num_tokens, dim))
        self.norm_pre = nn.LayerNorm(dim, eps=LAYER_NORM_EPS) if a.pre_norm else nn.Identity()
        rates = [drop_path * i / max(1, a.depth - 1) for i in range(a.depth)]
        self.blocks = nn.ModuleList(_blocks(a, self.widths, rates, dropout))
        self.norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        for name in HEADS[: 1 + dist]:
            setattr(self, name, nn.Linear(dim, a.num_classes) if a.num_classes else nn.Identity())
        self._init_weights(pos_embed_std)

    @property
    def head_names(self) -> tuple[str, ...]:
        """Attributes that hold the classifiers: of the class token or of the mean, then distillation heads."""
        return HEADS[: 1 + self.architecture.num_distillation_tokens]

    def set_reducers(self, reducers: Mapping[int, TokenReducer | TokenRoute]) -> None:
        """Install reducers by block number, from 1; blocks not named keep every token."""
        for number, block in enumerate(self.blocks, start=1):
            assert isinstance(block, Block)
            reducer = reducers.get(number)
            del block.reducer  # torch takes nothing but a module in a module's place
            block.reducer = reducer.to(self.pos_embed.device) if isinstance(reducer, nn.Module) else reducer

    def no_weight_decay(self) -> set[str]:
        """Parameters that timm's optimiser factory exempts from weight decay, besides biases and norms."""
        return {"cls_token", "dist_token", "pos_embed"}

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits (B, C); with distillation heads, the mean of all heads (DeiT, Section 3)."""
        return mean_of_heads(self.forward_heads(images_BCHW))

    def forward_heads(self, images_BCHW: Tensor) -> tuple[Tensor, ...]:
        """Logits (B, C) of the classifier, then those of each distillation head."""
        return self.heads_of(self.run_blocks(images_BCHW))

    def logits_of(self, x_BND: Tensor) -> Tensor:
        """Logits (B, C) of what ``forward_features`` returned, where no place is empty."""
        return mean_of_heads(self._heads(x_BND, None))

    def forward_features(self, images_BCHW: Tensor) -> Tensor:
        """Normalised tokens (B, N', D) after the last block, prefix tokens first."""
        return self.norm(self.run_blocks(images_BCHW).x_BND)

    def heads_of(self, state: TokenState) -> tuple[Tensor, ...]:
        """Logits (B, C) of each head, from what the last block left."""
        return self._heads(self.norm(state.x_BND), state.size_BN)

    def run_blocks(self, images_BCHW: Tensor) -> TokenState:
        """Tokens and their sizes after the last block, not yet normalised."""
        return self.run_from(0, self.entering(images_BCHW))

    def entering(self, images_BCHW: Tensor) -> TokenState:
        """What the first block sees."""
        return TokenState(self.norm_pre(self.embed(images_BCHW)))

    def run_from(self, first: int, state: TokenState) -> TokenState:
        """What the last block leaves, from what block ``first`` (an index) sees."""
        for block in self.blocks[first:]:
            assert isinstance(block, Block)
            state = block.run(state)
        return state

    def _heads(self, x_BND: Tensor, size_BN: Tensor | None) -> tuple[Tensor, ...]:
        if self.architecture.pool == "avg":
            return (self.head(_mean_of_patches(x_BND, size_BN, self.architecture.num_prefix_tokens)),)
        return tuple(getattr(self, name)(x_BND[:, place]) for place, name in enumerate(self.head_names))

    def embed(self, images_BCHW: Tensor) -> Tensor:
        """Prefix and patch tokens (B, N, D) with their positions."""
        x_BND = self.patch_embed(images_BCHW)
        prefix = [t.expand(x_BND.shape[0], -1, -1) for t in (self.cls_token, self.dist_token) if t is not None]
        return torch.cat([*prefix, x_BND], dim=1) + self.pos_embed

    def _init_weights(self, pos_embed_std: float) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for token in (self.cls_token, self.dist_token):
            if token is not None:
                trunc_normal_(token, std=0.02)
        trunc_normal_(self.pos_embed, std=pos_embed_std)


def mean_of_heads(heads_BC: Sequence[Tensor]) -> Tensor:
    """The mean of the logits (B, C) of several classifiers; of a single one, its own."""
    return heads_BC[0] if len(heads_BC) == 1 else sum(heads_BC[1:], heads_BC[0]) / len(heads_BC)


def _mean_of_patches(x_BND: Tensor, size_BN: Tensor | None, num_prefix: int) -> Tensor:
    """The mean of an image's patch tokens (B, D); places without a token do not count."""
    patches_BPD = x_BND[:, num_prefix:]
    if size_BN is None:
        return patches_BPD.mean(dim=1)
    there_BP1 = (size_BN[:, num_prefix:] > 0).to(x_BND.dtype).unsqueeze(-1)
    return (patches_BPD * there_BP1).sum(dim=1) / there_BP1.sum(dim=1).clamp_min(1)
