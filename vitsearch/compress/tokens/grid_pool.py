"""Pooling of square groups of patches on a running network."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from vitsearch.candidate import Architecture, GridPool
from vitsearch.candidate.tokens.grid_pool import side_of
from vitsearch.compress.tokens.scores import SCORE_KERNELS, ones_unless
from vitsearch.models import AttentionState, TokenReducer


class GridPoolReducer:
    """Pools each group G of neighbours into one token.

    The rule (Luhtalampi, Section 4.2.3)::

        avg: sum_G(s x) / sum_G(s);  max: max_G(x), channel by channel;  attention: sum_G(a x) / sum_G(a)

    with s the sizes and a the scores; the size of a group is sum_G(s) in each case.

    Args:
        grid: Side of a group in patches; 1 is the identity.
        side: Side of the square of patches.
        pool: One of the three.
        num_prefix: Leading tokens, which stay.
        score: What weighs.
    """

    def __init__(
        self,
        grid: int,
        *,
        side: int,
        pool: Literal["avg", "max", "attention"],
        num_prefix: int,
        score: str = "cls_attention",
    ) -> None:
        self.grid = grid
        self.pool = pool
        self.num_prefix = num_prefix
        self.score = score
        corners = [(top, left) for top in range(0, side, grid) for left in range(0, side, grid)]
        groups = [
            [
                row * side + column
                for row in range(top, min(top + grid, side))
                for column in range(left, min(left + grid, side))
            ]
            for top, left in corners
        ]
        largest = max(map(len, groups))
        # groups at the edge are filled up with their first patch, which then weighs nothing
        self.members = torch.tensor([group + group[:1] * (largest - len(group)) for group in groups])
        self.present = torch.tensor([[i < len(group) for i in range(largest)] for group in groups])

    def __call__(
        self, x_BND: Tensor, attention: AttentionState, size_BN: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Pool."""
        if self.grid == 1:
            return x_BND, size_BN
        prefix = self.num_prefix
        size_BN = ones_unless(size_BN, x_BND)
        members_ML, present_ML = self.members.to(x_BND.device), self.present.to(x_BND.device)
        groups_BMLD = x_BND[:, prefix:][:, members_ML]
        size_BML = size_BN[:, prefix:][:, members_ML] * present_ML
        if self.pool == "max":
            pooled_BMD = groups_BMLD.max(dim=2).values
        else:
            weight_BML = size_BML
            if self.pool == "attention":
                scores_BP = SCORE_KERNELS[self.score](x_BND, attention, prefix)
                weight_BML = scores_BP[:, members_ML] * present_ML
            weight_BML = weight_BML / weight_BML.sum(dim=2, keepdim=True)
            pooled_BMD = (groups_BMLD * weight_BML.unsqueeze(-1)).sum(dim=2)
        return (
            torch.cat([x_BND[:, :prefix], pooled_BMD], dim=1),
            torch.cat([size_BN[:, :prefix], size_BML.sum(dim=2)], dim=1),
        )


def build_grid_pool(rule: GridPool, architecture: Architecture) -> dict[int, TokenReducer]:
    """One reducer for each block that more than one patch reaches."""
    counts = rule.token_counts(architecture)
    prefix = architecture.num_prefix_tokens
    return {
        block: GridPoolReducer(
            rule.grid,
            side=side_of(counts[block - 1] - prefix),
            pool=rule.pool,
            num_prefix=prefix,
            score=rule.score,
        )
        for block in rule.active_blocks(architecture.depth)
        if counts[block] < counts[block - 1]
    }
