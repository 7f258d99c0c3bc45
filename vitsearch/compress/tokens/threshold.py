"""Threshold selection on a running network."""

from __future__ import annotations

from torch import Tensor

from vitsearch.candidate import Architecture, ThresholdSelection
from vitsearch.compress.tokens.ragged import at_least_one, drop_others, merge_others, scores_of_present
from vitsearch.compress.tokens.scores import SCORE_KERNELS, ones_unless
from vitsearch.models import AttentionState, TokenReducer


class ThresholdReducer:
    """Keeps the patches whose score exceeds a threshold.

    The rule::

        keep i if score_i > tau or score_i is the largest;  the others are dropped, or each merges into the kept j
        of the largest cos(x_i, x_j): x_j <- sum(s x) / sum(s),  s_j <- sum(s)

    Args:
        tau: The threshold; 0 is the identity.
        merge: Whether the others merge.
        num_prefix: Protected leading tokens; nothing merges into them.
        score: What is compared with the threshold.
    """

    def __init__(self, tau: float, *, merge: bool, num_prefix: int, score: str = "cls_attention") -> None:
        self.tau = tau
        self.merge = merge
        self.num_prefix = num_prefix
        self.score = score

    def __call__(
        self, x_BND: Tensor, attention: AttentionState, size_BN: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Reduce."""
        if not self.tau:
            return x_BND, size_BN
        size_BN = ones_unless(size_BN, x_BND)
        scores_BP = SCORE_KERNELS[self.score](x_BND, attention, self.num_prefix)
        scores_BP = scores_of_present(scores_BP, size_BN[:, self.num_prefix :])
        keep_BP = at_least_one(scores_BP > self.tau, scores_BP)
        reduce = merge_others if self.merge else drop_others
        return reduce(x_BND, size_BN, keep_BP, self.num_prefix)


def build_threshold(rule: ThresholdSelection, architecture: Architecture) -> dict[int, TokenReducer]:
    """One reducer for each block that has a threshold."""
    taus = {block: rule.figure_of(block, architecture.depth) for block in rule.active_blocks(architecture.depth)}
    prefix = architecture.num_prefix_tokens
    return {
        block: ThresholdReducer(tau, merge=rule.rest == "merge", num_prefix=prefix, score=rule.score)
        for block, tau in taus.items()
        if tau
    }
