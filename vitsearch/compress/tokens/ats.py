"""Adaptive token sampling on a running network."""

from __future__ import annotations

import torch
from torch import Tensor

from vitsearch.candidate import ATS, Architecture
from vitsearch.compress.tokens.ragged import drop_others, present
from vitsearch.compress.tokens.scores import SCORE_KERNELS, ones_unless, shares
from vitsearch.models import AttentionState, TokenReducer


class ATSReducer:
    """Keeps the patches that points spread evenly over the distribution of scores fall on.

    The rule (Fayyaz et al., 2022, Section 3.2), with scores that sum to one::

        sort ascending;  C_i = the sum of the scores up to i;  u_k = (2 k - 1) / (2 n) for k = 1, ..., n
        keep every i that is nearest to some u_k, |C_i - u_k| least;  of equally near ones the lower

    A patch on which several points fall stays once, so that images with few telling patches keep few. Kept tokens
    stay in their order.

    Args:
        samples: n; 0 is the identity.
        num_prefix: Protected leading tokens.
        score: Whose distribution; shares of its sum over patches.
    """

    def __init__(self, samples: int, *, num_prefix: int, score: str = "ats") -> None:
        self.samples = samples
        self.num_prefix = num_prefix
        self.score = score

    def __call__(
        self, x_BND: Tensor, attention: AttentionState, size_BN: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Reduce."""
        if not self.samples:
            return x_BND, size_BN
        size_BN = ones_unless(size_BN, x_BND)
        there_BP = present(size_BN[:, self.num_prefix :])
        scores_BP = SCORE_KERNELS[self.score](x_BND, attention, self.num_prefix) * there_BP
        keep_BP = sampled(shares(scores_BP), there_BP, self.samples)
        return drop_others(x_BND, size_BN, keep_BP, self.num_prefix)


def sampled(shares_BP: Tensor, there_BP: Tensor, samples: int) -> Tensor:
    """Which patches ``samples`` evenly spread points fall on, boolean (B, P).

    Args:
        shares_BP: Scores that sum to one, zero at empty places.
        there_BP: Where there is a patch.
        samples: n.
    """
    order_BP = shares_BP.masked_fill(~there_BP, -1.0).argsort(dim=1)  # empty places first
    reached_BP = shares_BP.gather(1, order_BP).cumsum(dim=1).masked_fill(~there_BP.gather(1, order_BP), torch.inf)
    points_n = (2 * torch.arange(samples, device=shares_BP.device, dtype=shares_BP.dtype) + 1) / (2 * samples)
    nearest_Bn = (reached_BP[:, None] - points_n[:, None]).abs().argmin(dim=-1)
    hit_BP = torch.zeros_like(shares_BP).scatter(1, order_BP.gather(1, nearest_Bn), 1.0)
    return hit_BP > 0


def build_ats(rule: ATS, architecture: Architecture) -> dict[int, TokenReducer]:
    """One reducer for each block that samples."""
    samples = {b: int(rule.figure_of(b, architecture.depth)) for b in rule.active_blocks(architecture.depth)}
    return {
        block: ATSReducer(count, num_prefix=architecture.num_prefix_tokens, score=rule.score)
        for block, count in samples.items()
        if count
    }
