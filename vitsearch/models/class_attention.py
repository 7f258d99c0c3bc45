"""Class attention: first the patches among themselves, then class tokens that read them.

CaiT (Touvron et al., 2021, *Going Deeper with Image Transformers*). Class tokens stand
before the patches throughout; the blocks of self-attention pass them by. In the last blocks, with c the class
tokens and x the patches::

    z = [c, x];  q = W_q norm(c), k = W_k norm(z), v = W_v norm(z)
    c <- c + W_o softmax(q k^T / sqrt(K)) v;  c <- c + MLP(norm(c));  x stays

Differences from the paper: the position embedding has rows for the class tokens, too, which are added to the
learned tokens; a distillation token is a class token like CLS; stochastic depth rises over these blocks, too. The
paper's small initial scale of residual branches is a setting of its own, ``layer_scale``.

Shape suffixes: B batch, N tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vitsearch.candidate import Architecture, BlockWidths
from vitsearch.models.attention import Attention, AttentionState, log_size_bias
from vitsearch.models.vit import Block


class PatchBlock(Block):
    """A block of self-attention among patches alone; class tokens pass it by.

    Args:
        architecture: The network's shape.
        widths: Sizes of this block, after pruning.
        drop_path: Stochastic depth rate of this block.
        dropout: Dropout rate after the projections.
    """

    def __init__(self, architecture: Architecture, widths: BlockWidths, drop_path: float, dropout: float) -> None:
        super().__init__(architecture, widths, drop_path, dropout)
        self.num_prefix = architecture.num_prefix_tokens

    def forward(self, x_BND: Tensor, size_BN: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Attend, reduce, and mix channels; a reducer sees the patches only."""
        prefix_BPD, patches_BND = x_BND[:, : self.num_prefix], x_BND[:, self.num_prefix :]
        patches_BND, size_BN = super().forward(
            patches_BND, None if size_BN is None else size_BN[:, self.num_prefix :]
        )
        if size_BN is not None:
            size_BN = torch.cat([torch.ones_like(size_BN[:, :1]).expand(-1, self.num_prefix), size_BN], dim=1)
        return torch.cat([prefix_BPD, patches_BND], dim=1), size_BN


class ClassAttentionBlock(Block):
    """A block in which only class tokens attend and change.

    Args:
        architecture: The network's shape.
        widths: Sizes of this block, after pruning.
        drop_path: Stochastic depth rate of this block.
        dropout: Dropout rate after the projections.
    """

    def __init__(self, architecture: Architecture, widths: BlockWidths, drop_path: float, dropout: float) -> None:
        super().__init__(architecture, widths, drop_path, dropout)
        self.num_prefix = architecture.num_prefix_tokens
        self.attn = Attention(
            widths.width, widths.heads, architecture.head_dim, dropout, qk_dim=widths.qk_dim, v_dim=widths.v_dim,
            hides_self=architecture.attention == "lsa", num_queries=self.num_prefix,
        )  # fmt: skip

    def forward(self, x_BND: Tensor, size_BN: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Attend, and mix channels of the class tokens."""
        assert self.reducer is None
        class_BPD, _ = self.attend(x_BND, size_BN)
        return torch.cat([self.mix_channels(class_BPD), x_BND[:, self.num_prefix :]], dim=1), size_BN

    def attend(self, x_BND: Tensor, size_BN: Tensor | None) -> tuple[Tensor, AttentionState]:
        """The first half: class tokens after the attention's residual, and what the attention computed."""
        mixed_BPD, state = self.attn(self.norm1(x_BND), log_size_bias(size_BN))
        return x_BND[:, : self.num_prefix] + self.drop_path1(self.ls1(mixed_BPD)), state
