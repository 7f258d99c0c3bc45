"""Weight multiplexing: consecutive blocks that share the weights of attention and MLP.

MiniViT (Zhang et al., 2022, *MiniViT: Compressing Vision Transformers with Weight Multiplexing*): each use of the
shared weights has transformations of its own. In the attention, heads are mixed before and after the softmax, for
heads n, m, k::

    A_n = softmax(sum_m F_nm Q_m K_m^T / sqrt(K)),  h_k = sum_n G_kn A_n V_k

Before the MLP and before the attention it is the LayerNorm of that use, a scale and shift for each channel. The
paper's transformation before the MLP is a depthwise convolution over the grid of patches; removed tokens leave no
grid, so that here its kernel is one token wide, which is what the norm's own scale already does. F and G begin as
the identity, so that a network starts as the plain one with repeated weights.

Shape suffixes: B batch, N tokens, D width, H heads.
"""

from __future__ import annotations

from torch import Tensor, nn

from vitsearch.candidate import Architecture, BlockWidths
from vitsearch.models.attention import Attention, AttentionState, log_size_bias
from vitsearch.models.head_mixing import HeadMixing
from vitsearch.models.vit import Block


class MultiplexedBlock(Block):
    """The block of a group that has the shared weights.

    Args:
        architecture: The network's shape.
        widths: Sizes of this block, after pruning.
        drop_path: Stochastic depth rate of this block.
        dropout: Dropout rate after the projections.
    """

    def __init__(self, architecture: Architecture, widths: BlockWidths, drop_path: float, dropout: float) -> None:
        super().__init__(architecture, widths, drop_path, dropout)
        self.mixing = HeadMixing(widths.heads)

    def attend(self, x_BND: Tensor, size_BN: Tensor | None) -> tuple[Tensor, AttentionState]:
        """The first half: tokens after the attention's residual, and what the attention computed."""
        mixed_BND, state = self.attn(self.norm1(x_BND), log_size_bias(size_BN), self.mixing)
        return x_BND + self.drop_path1(self.ls1(mixed_BND)), state


class RepeatedBlock(MultiplexedBlock):
    """A further use of another block's weights.

    Its attention and MLP are those of the other block, whatever becomes of them, and are no modules of its own: a
    state dict, and whoever counts parameters, finds them once.

    Args:
        owner: The block that has the weights.
        architecture: The network's shape.
        widths: Sizes of this block, after pruning.
        drop_path: Stochastic depth rate of this block.
        dropout: Dropout rate after the projections.
    """

    def __init__(
        self,
        owner: MultiplexedBlock,
        architecture: Architecture,
        widths: BlockWidths,
        drop_path: float,
        dropout: float,
    ) -> None:
        super().__init__(architecture, widths, drop_path, dropout)
        del self._modules["attn"], self._modules["mlp"]
        self._owner = (owner,)  # in a tuple, so that torch does not make it a part of this one

    @property
    def attn(self) -> Attention:  # type: ignore[override]  # what is an attribute there is looked up here
        """The attention of the block that has the weights."""
        return self._owner[0].attn

    @property
    def mlp(self) -> nn.Module:
        """The MLP of the block that has the weights."""
        return self._owner[0].mlp
