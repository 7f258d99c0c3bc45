"""DiffRate with given rates on a running network."""

from __future__ import annotations

from torch import Tensor

from vitsearch.candidate import Architecture, DiffRate
from vitsearch.compress.tokens.kernels import keep_and_merge
from vitsearch.compress.tokens.scores import SCORE_KERNELS, ones_unless, split_by_score
from vitsearch.models import AttentionState, TokenReducer


class DiffRateReducer:
    """Prunes the patches of the lowest scores and merges the next lowest.

    The rule (Chen et al., 2023)::

        sort by score;  drop the last p;  each of the m before them merges into the j of the largest cos(x_i, x_j)
        among those before:  x_j <- sum(s x) / sum(s),  s_j <- sum(s)

    Args:
        pruned: Patches dropped.
        merged: Patches merged; with none of both it is the identity.
        num_prefix: Protected leading tokens; nothing merges into them.
        score: What sorts.
    """

    def __init__(self, pruned: int, merged: int, *, num_prefix: int, score: str = "cls_attention") -> None:
        self.pruned = pruned
        self.merged = merged
        self.num_prefix = num_prefix
        self.score = score

    def __call__(
        self, x_BND: Tensor, attention: AttentionState, size_BN: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Reduce."""
        if not self.pruned + self.merged:
            return x_BND, size_BN
        prefix = self.num_prefix
        size_BN = ones_unless(size_BN, x_BND)
        scores_BP = SCORE_KERNELS[self.score](x_BND, attention, prefix)
        kept_BM, rest_BR = split_by_score(scores_BP, scores_BP.shape[1] - self.pruned - self.merged)
        merged_BR = rest_BR[:, : self.merged] if self.merged else None
        return keep_and_merge(x_BND, size_BN, kept_BM, merged_BR, prefix)


def build_diffrate(rule: DiffRate, architecture: Architecture) -> dict[int, TokenReducer]:
    """One reducer for each block that prunes or merges."""
    counts = rule.token_counts(architecture)
    blocks = rule.active_blocks(architecture.depth)
    rates = {block: rule.rates(counts[block - 1], architecture, block) for block in blocks}
    return {
        block: DiffRateReducer(*pair, num_prefix=architecture.num_prefix_tokens, score=rule.score)
        for block, pair in rates.items()
        if sum(pair)
    }
