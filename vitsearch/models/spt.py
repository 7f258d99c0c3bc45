"""Shifted patch tokenisation: patches that see half a patch beyond their borders.

Shape suffixes: B batch, C channels, H height, W width, N patches, F features of a patch, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NUM_VIEWS = 5


class ShiftedPatchEmbed(nn.Module):
    """SPT (Lee et al., 2021, *Vision Transformer for Small-Size Datasets*, Eq. 6-8).

    S(x) = Linear(LayerNorm(patches of [x, s_1(x), ..., s_4(x)])), where s_i shifts the image by half a patch along
    one of the four diagonals and the views are stacked as channels. What moves in from outside is zero.

    Args:
        in_chans: Channels of the image.
        patch_size: Side of a patch in pixels; the shift is half of it, rounded down.
        embed_dim: Width of a token, D.
        bias: Whether the projection has one.
        eps: Of the LayerNorm.
    """

    def __init__(self, in_chans: int, patch_size: int, embed_dim: int, *, bias: bool = True, eps: float) -> None:
        super().__init__()
        self.patch_size = patch_size
        features = NUM_VIEWS * in_chans * patch_size**2
        self.norm = nn.LayerNorm(features, eps=eps)
        self.proj = nn.Linear(features, embed_dim, bias=bias)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Tokens (B, N, D), row by row."""
        P = self.patch_size
        x = torch.cat([images_BCHW, *diagonal_shifts(images_BCHW, P // 2)], dim=1)
        B, V, H, W = x.shape
        x_BNF = x.reshape(B, V, H // P, P, W // P, P).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        return self.proj(self.norm(x_BNF))


def diagonal_shifts(images_BCHW: Tensor, pixels: int) -> list[Tensor]:
    """The images moved to the upper left, upper right, lower left and lower right; zeros move in."""
    H, W = images_BCHW.shape[-2:]
    padded = F.pad(images_BCHW, [pixels] * 4)
    ends = (2 * pixels, 0)
    return [padded[..., top : top + H, left : left + W] for top in ends for left in ends]
