"""Top-k selection on a running network."""

from __future__ import annotations

from torch import Tensor

from vitsearch.candidate import Architecture, TopK
from vitsearch.compress.tokens.kernels import keep_and_merge
from vitsearch.compress.tokens.scores import SCORE_KERNELS, ones_unless, split_by_score
from vitsearch.models import AttentionState, TokenReducer


class TopKReducer:
    """Keeps the patches of the highest score.

    The rule::

        keep the k best;  the others are dropped, or each merges into the kept j of the largest cos(x_i, x_j):
        x_j <- sum(s x) / sum(s),  s_j <- sum(s)

    Args:
        num_kept: Patches kept; all of them is the identity.
        merge: Whether the others merge.
        num_prefix: Protected leading tokens; nothing merges into them.
        score: What ranks.
    """

    def __init__(self, num_kept: int, *, merge: bool, num_prefix: int, score: str = "cls_attention") -> None:
        self.num_kept = num_kept
        self.merge = merge
        self.num_prefix = num_prefix
        self.score = score

    def __call__(
        self, x_BND: Tensor, attention: AttentionState, size_BN: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Reduce."""
        prefix = self.num_prefix
        if self.num_kept >= x_BND.shape[1] - prefix:
            return x_BND, size_BN
        size_BN = ones_unless(size_BN, x_BND)
        kept_BM, rest_BR = split_by_score(SCORE_KERNELS[self.score](x_BND, attention, prefix), self.num_kept)
        return keep_and_merge(x_BND, size_BN, kept_BM, rest_BR if self.merge else None, prefix)


def build_topk(rule: TopK, architecture: Architecture) -> dict[int, TokenReducer]:
    """One reducer for each block that keeps fewer patches than reach it."""
    prefix = architecture.num_prefix_tokens
    return {
        block: TopKReducer(kept, merge=rule.rest == "merge", num_prefix=prefix, score=rule.score)
        for block, (patches, kept) in rule.kept_per_block(architecture).items()
        if kept < patches
    }
