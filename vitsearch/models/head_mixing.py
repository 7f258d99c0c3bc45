"""Linear maps between attention heads, before and after the softmax.

Shape suffixes: B batch, H heads, N keys, M queries.
"""

from __future__ import annotations

from torch import nn


class HeadMixing(nn.Module):
    """L_n <- sum_m F_nm L_m for logits and A_k <- sum_n G_kn A_n for attention matrices (B, H, M, N).

    Args:
        num_heads: H. Both maps begin as the identity.

    Attributes:
        before: F, a convolution of one position.
        after: G, likewise.
    """

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.before = nn.Conv2d(num_heads, num_heads, 1, bias=False)
        self.after = nn.Conv2d(num_heads, num_heads, 1, bias=False)
        for layer in (self.before, self.after):
            nn.init.dirac_(layer.weight)
