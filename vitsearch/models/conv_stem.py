"""Convolutional stem: a patch embedding that sees its surroundings.

Shape suffixes: B batch, C channels, H height, W width, N patches, D width.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitsearch.candidate import STEM_KERNEL, Architecture


class ConvStem(nn.Module):
    """Early convolutions in place of one large one.

    Xiao et al., 2021, *Early Convolutions Help Transformers See Better*::

        x_0 = image,  x_i = ReLU(BatchNorm(Conv3x3 of stride 2 (x_{i-1}))),  tokens = Conv1x1(x_n)

    with n = log2(patch size) and D / 2^(n-i) channels in x_i. The paper leaves out one transformer block in
    exchange; here the depth is a setting of its own.

    Each convolution has a bias, and BatchNorm is there only while the network learns: its running statistics,
    scales and shifts are then folded into weights and biases, so that a finished network has no parameters for
    them, and fine-tuning after pruning goes without.

    Args:
        architecture: The dense network's shape; gives image channels and ``stem_channels``.
        embed_dim: Width of a token, D, after pruning. The convolutions keep their channels.
    """

    def __init__(self, architecture: Architecture, embed_dim: int) -> None:
        super().__init__()
        channels = [architecture.in_chans, *architecture.stem_channels]
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, STEM_KERNEL, stride=2, padding=STEM_KERNEL // 2) for i, o in pairwise(channels)
        )
        self.norms = nn.ModuleList()
        self.proj = nn.Conv2d(channels[-1], embed_dim, 1, bias=architecture.patch_bias)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Tokens (B, N, D), row by row."""
        x_BCHW = images_BCHW
        for number, conv in enumerate(self.convs):
            x_BCHW = conv(x_BCHW)
            if self.norms:
                x_BCHW = self.norms[number](x_BCHW)
            x_BCHW = F.relu(x_BCHW)
        x_BND: Tensor = self.proj(x_BCHW).flatten(2).transpose(1, 2)
        return x_BND


def learn_batch_norms(model: nn.Module) -> None:
    """Normalise after each convolution of every stem, for training."""
    for module in model.modules():
        if isinstance(module, ConvStem):
            device = module.proj.weight.device
            module.norms = nn.ModuleList(
                nn.BatchNorm2d(conv.out_channels, device=device)
                for conv in module.convs
                if isinstance(conv, nn.Conv2d)
            )


@torch.no_grad()
def fold_batch_norms(model: nn.Module) -> None:
    """With s = gamma / sqrt(var + eps): W <- s W, b <- s (b - mean) + beta; what is evaluated stays the same."""
    for module in model.modules():
        if isinstance(module, ConvStem):
            for conv, norm in zip(module.convs, module.norms, strict=bool(module.norms)):
                assert isinstance(conv, nn.Conv2d)
                assert isinstance(norm, nn.BatchNorm2d)
                assert conv.bias is not None
                assert norm.running_mean is not None
                assert norm.running_var is not None
                scale_C = norm.weight / (norm.running_var + norm.eps).sqrt()
                conv.weight.mul_(scale_C[:, None, None, None])
                conv.bias.copy_(scale_C * (conv.bias - norm.running_mean) + norm.bias)
            module.norms = nn.ModuleList()
