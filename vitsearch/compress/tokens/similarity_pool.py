"""Pooling of similar tokens on a running network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vitsearch.candidate import Architecture, SimilarityPool
from vitsearch.compress.tokens.kernels import gather_tokens
from vitsearch.compress.tokens.ragged import compacted, pooled, present, scores_of_present
from vitsearch.compress.tokens.scores import SCORE_KERNELS, ones_unless
from vitsearch.models import AttentionState, TokenReducer


class SimilarityPoolReducer:
    """Goes on with one token for each group of similar patches.

    The rule (Luhtalampi, Section 4.2.3)::

        in the order of falling scores: a patch that is in no group yet opens one, and every later patch in none
        with cos(x_i, x_opener) > tau joins it
        x <- sum(s x) / sum(s) over the group, or the opener's x;  s <- sum(s)

    Openers keep their order. The thesis leaves the order in which groups are opened to the implementation.

    Args:
        tau: The threshold; 1 is the identity.
        average: Whether the group's average goes on, and not its opener.
        num_prefix: Protected leading tokens.
        score: What orders.
    """

    def __init__(self, tau: float, *, average: bool, num_prefix: int, score: str = "cls_attention") -> None:
        self.tau = tau
        self.average = average
        self.num_prefix = num_prefix
        self.score = score

    def __call__(
        self, x_BND: Tensor, attention: AttentionState, size_BN: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Reduce."""
        if self.tau >= 1:
            return x_BND, size_BN
        prefix, size_BN = self.num_prefix, ones_unless(size_BN, x_BND)
        there_BP = present(size_BN[:, prefix:])
        scores_BP = scores_of_present(SCORE_KERNELS[self.score](x_BND, attention, prefix), size_BN[:, prefix:])
        opener_BP = openers(x_BND[:, prefix:], scores_BP, there_BP, self.tau)
        keep_BP = (opener_BP == torch.arange(opener_BP.shape[1], device=x_BND.device)) & there_BP
        if self.average:
            return pooled(x_BND, size_BN, keep_BP, opener_BP, prefix)
        sizes_BP = torch.zeros_like(size_BN[:, prefix:]).scatter_add(1, opener_BP, size_BN[:, prefix:])
        x_BMD, size_BM = compacted(x_BND, torch.cat([size_BN[:, :prefix], sizes_BP], dim=1))
        return x_BMD, size_BM


def openers(x_BPD: Tensor, scores_BP: Tensor, there_BP: Tensor, tau: float) -> Tensor:
    """The place of the patch that opened each patch's group, (B, P); its own at empty places."""
    P = int(x_BPD.shape[1])
    order_BP = scores_BP.argsort(dim=1, descending=True)
    unit_BPD = F.normalize(gather_tokens(x_BPD, order_BP), dim=-1)
    alike_BPP = unit_BPD @ unit_BPD.transpose(1, 2) > tau
    places_P = torch.arange(P, device=x_BPD.device)
    free_BP = there_BP.gather(1, order_BP)
    opener_BP = places_P.expand_as(order_BP)  # ranks for now
    for rank in range(P):
        opens_B1 = free_BP[:, rank : rank + 1]
        joins_BP = opens_B1 & free_BP & (alike_BPP[:, rank] | (places_P == rank))
        opener_BP = torch.where(joins_BP, rank, opener_BP)
        free_BP = free_BP & ~joins_BP
    return torch.zeros_like(order_BP).scatter(1, order_BP, order_BP.gather(1, opener_BP))


def build_similarity_pool(rule: SimilarityPool, architecture: Architecture) -> dict[int, TokenReducer]:
    """One reducer for each block that has a threshold."""
    taus = {block: rule.figure_of(block, architecture.depth) for block in rule.active_blocks(architecture.depth)}
    prefix = architecture.num_prefix_tokens
    return {
        block: SimilarityPoolReducer(tau, average=rule.pool == "avg", num_prefix=prefix, score=rule.score)
        for block, tau in taus.items()
        if tau < 1
    }
