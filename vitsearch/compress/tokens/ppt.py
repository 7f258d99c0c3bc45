"""PPT, prune or pool, on a running network."""

from __future__ import annotations

import torch
from torch import Tensor

from vitsearch.candidate import PPT, Architecture
from vitsearch.compress.tokens.kernels import gather_tokens
from vitsearch.compress.tokens.scores import SCORE_KERNELS, ones_unless, shares, split_by_score
from vitsearch.compress.tokens.tome import merge_by_keys
from vitsearch.models import AttentionState, TokenReducer


class PPTReducer:
    """Prunes where token scores vary, merges where they do not.

    The rule (Wu et al., 2023)::

        score_i = sum_h A[cls, i] * norm(v_i), normalised over patches
        image with var(score) > tau: drop the r lowest;  any other image: ToMe-merge r

    Another score takes the same place, normalised. The variance is the unbiased one, over patches. Both branches
    remove r tokens, so the count is fixed; each image takes its own. Kept tokens stay in their order, where the
    authors' code sorts them by score.

    Args:
        r: Tokens to remove, at most (N - protected) // 2; 0 is the identity.
        tau: Score variance above which an image is pruned.
        num_prefix: Protected leading tokens.
        score: What ranks.
    """

    def __init__(self, r: int, *, tau: float, num_prefix: int, score: str = "ats") -> None:
        self.r = r
        self.tau = tau
        self.num_prefix = num_prefix
        self.score = score

    def __call__(
        self, x_BND: Tensor, attention: AttentionState, size_BN: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Reduce."""
        r = self.r
        if r == 0:
            return x_BND, size_BN
        size_BN = ones_unless(size_BN, x_BND)
        scores_BP = shares(SCORE_KERNELS[self.score](x_BND, attention, self.num_prefix))
        merged_BMD, merged_BM = merge_by_keys(x_BND, attention, size_BN, r, self.num_prefix)
        pruned_BMD, pruned_BM = self._pruned(x_BND, size_BN, scores_BP, r)
        prune_B = scores_BP.var(dim=-1) > self.tau
        return (
            torch.where(prune_B[:, None, None], pruned_BMD, merged_BMD),
            torch.where(prune_B[:, None], pruned_BM, merged_BM),
        )

    def _pruned(self, x_BND: Tensor, size_BN: Tensor, scores_BP: Tensor, r: int) -> tuple[Tensor, Tensor]:
        kept_BM = split_by_score(scores_BP, scores_BP.shape[1] - r)[0] + self.num_prefix
        prefix = self.num_prefix
        return (
            torch.cat([x_BND[:, :prefix], gather_tokens(x_BND, kept_BM)], dim=1),
            torch.cat([size_BN[:, :prefix], size_BN.gather(1, kept_BM)], dim=1),
        )


def build_ppt(rule: PPT, architecture: Architecture) -> dict[int, TokenReducer]:
    """One reducer for each block that removes anything."""
    counts = rule.token_counts(architecture)
    removed = {block: counts[block - 1] - counts[block] for block in rule.active_blocks(architecture.depth)}
    return {
        block: PPTReducer(r, tau=rule.tau, num_prefix=architecture.num_prefix_tokens, score=rule.score)
        for block, r in removed.items()
        if r
    }
