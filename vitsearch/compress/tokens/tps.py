"""Token pruning and squeezing on a running network."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vitsearch.candidate import TPS, Architecture
from vitsearch.compress.tokens.kernels import gather_tokens, merge_into, nearest_kept
from vitsearch.compress.tokens.scores import SCORE_KERNELS, split_by_score
from vitsearch.models import AttentionState, TokenReducer


class TPSReducer:
    """Keeps the patches of the highest score and squeezes the others into them.

    The rule (Wei et al., 2023)::

        each pruned i goes to the kept j of the largest cos(x_i, x_j):
        x_j <- (e x_j + sum_i e^cos(x_i, x_j) x_i) / (e + sum_i e^cos(x_i, x_j))

    Args:
        num_kept: Patches kept; all of them is the identity.
        num_prefix: Protected leading tokens; nothing is squeezed into them.
        score: What ranks.
    """

    def __init__(self, num_kept: int, *, num_prefix: int, score: str = "cls_attention") -> None:
        self.num_kept = num_kept
        self.num_prefix = num_prefix
        self.score = score

    def __call__(
        self, x_BND: Tensor, attention: AttentionState, size_BN: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Reduce; sizes are not tracked."""
        prefix = self.num_prefix
        if self.num_kept >= x_BND.shape[1] - prefix:
            return x_BND, size_BN
        kept_BM, rest_BR = split_by_score(SCORE_KERNELS[self.score](x_BND, attention, prefix), self.num_kept)
        kept_BMD, rest_BRD = (gather_tokens(x_BND[:, prefix:], index) for index in (kept_BM, rest_BR))
        cosine_BR, target_BR = nearest_kept(rest_BRD, kept_BMD)
        own_BM = math.e * torch.ones_like(kept_BMD[..., 0])
        squeezed_BMD, _ = merge_into(kept_BMD, own_BM, rest_BRD, cosine_BR.exp().to(x_BND.dtype), target_BR)
        return torch.cat([x_BND[:, :prefix], squeezed_BMD], dim=1), None


def build_tps(rule: TPS, architecture: Architecture) -> dict[int, TokenReducer]:
    """One reducer for each block that keeps fewer patches than reach it."""
    return {
        block: TPSReducer(kept, num_prefix=architecture.num_prefix_tokens, score=rule.score)
        for block, (patches, kept) in rule.kept_per_block(architecture).items()
        if kept < patches
    }
