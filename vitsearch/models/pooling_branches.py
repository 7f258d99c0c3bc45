"""Average-pooling branches and affine residuals, which give a binary network what it lacks.

BinaryViT (Le and Li, 2023, *BinaryViT: Pushing Binary Vision Transformers Towards Convolutional Models*): products
of signs say little; means of real values cost no product and say more. With h the tokens after the attention::

    f(z) = gamma * z + beta                                (channel by channel, learned; each use has its own)
    h = x + f_1(attention(norm(x))),   n = norm(h)
    y = h + f_2(MLP(n)) + sum_k f_k(pool_k(n)),   k in {1 x 3, 3 x 1, 1 x 5, 5 x 1}

where pool_k is the mean over a window of neighbours on the grid of patches, at stride 1. The gammas of f_1 and f_2
begin at 0.1, those of branches at 0, betas at 0.

Differences from the public code: at the edge a mean is that of the patches that are there (zeros are averaged in
there); CLS and distillation tokens have no neighbours, and no branches (its networks have neither). Its mean of
patches before the head is ``pool: avg``, its teacher ``train.distill``; its pyramid is ``grid_pool`` as far as the
number of tokens goes, at one width. Its shortcuts around every linear layer and its RPReLU are not here.

Shape suffixes: B batch, N tokens, P prefix tokens, D width, S side of the grid.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitsearch.candidate import POOLING_WINDOWS, Architecture, BlockWidths
from vitsearch.models.vit import Block

RESIDUAL_INIT = 0.1


class ChannelAffine(nn.Module):
    """gamma * x + beta, channel by channel.

    Args:
        dim: Channels D.
        init: Of every gamma; betas begin at 0.
    """

    def __init__(self, dim: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init))
        self.beta = nn.Parameter(torch.zeros(dim))

    def forward(self, x_BND: Tensor) -> Tensor:
        """Scaled and shifted; shape as before."""
        return x_BND * self.gamma + self.beta


class PoolingBranches(nn.Module):
    """What the branches add to the patches of a block: sum_k f_k(pool_k(n)).

    Args:
        dim: Channels D.
        num_prefix: Leading tokens that are no patches.
    """

    def __init__(self, dim: int, num_prefix: int) -> None:
        super().__init__()
        self.num_prefix = num_prefix
        self.affines = nn.ModuleList(ChannelAffine(dim, 0.0) for _ in POOLING_WINDOWS)

    def forward(self, normed_BND: Tensor) -> Tensor:
        """The sum of the branches (B, N, D), zero at prefix tokens.

        Args:
            normed_BND: Normalised tokens, whose patches are a square, row by row.
        """
        B, N, D = normed_BND.shape
        side = math.isqrt(N - self.num_prefix)
        grid_BDSS = normed_BND[:, self.num_prefix :].transpose(1, 2).reshape(B, D, side, side)
        branches = []
        for window, affine in zip(POOLING_WINDOWS, self.affines, strict=True):
            padding = (window[0] // 2, window[1] // 2)
            pooled_BDSS = F.avg_pool2d(grid_BDSS, window, stride=1, padding=padding, count_include_pad=False)
            branches.append(affine(pooled_BDSS.flatten(2).transpose(1, 2)))
        return F.pad(sum(branches[1:], branches[0]), (0, 0, self.num_prefix, 0))

    @torch.no_grad()
    def absorb(self, ratio_D: Tensor, shift_D: Tensor) -> None:
        """Answer (n + shift) / ratio as n was answered before: a mean of shifted values is the shifted mean."""
        for affine in self.affines:
            assert isinstance(affine, ChannelAffine)
            affine.beta.sub_(affine.gamma * shift_D)
            affine.gamma.mul_(ratio_D)


class PoolingBlock(Block):
    """A block with affine residuals, and average-pooling branches beside its MLP.

    Args:
        architecture: The network's shape.
        widths: Sizes of this block, after pruning.
        drop_path: Stochastic depth rate of this block; branches are always there.
        dropout: Dropout rate after the projections.
    """

    def __init__(self, architecture: Architecture, widths: BlockWidths, drop_path: float, dropout: float) -> None:
        super().__init__(architecture, widths, drop_path, dropout)
        self.ls1 = ChannelAffine(widths.width, RESIDUAL_INIT)
        self.ls2 = ChannelAffine(widths.width, RESIDUAL_INIT)
        self.branches = PoolingBranches(widths.width, architecture.num_prefix_tokens)

    def mix_channels(self, x_BND: Tensor) -> Tensor:
        """The second half: tokens after the MLP's residual and the branches."""
        normed_BND = self.norm2(x_BND)
        return x_BND + self.drop_path2(self.ls2(self.mlp(normed_BND))) + self.branches(normed_BND)
