"""EViT on a running network."""

from __future__ import annotations

import torch
from torch import Tensor

from vitsearch.candidate import Architecture, EViT
from vitsearch.compress.tokens.kernels import gather_tokens
from vitsearch.compress.tokens.scores import SCORE_KERNELS, shares, split_by_score
from vitsearch.models import AttentionState, TokenReducer


class EViTReducer:
    """Keeps the patches the CLS token attends to and fuses the others.

    The rule (Liang et al., 2022)::

        score_i = mean_h A[cls, i];  keep the ceil(keep (N - prefix)) best;  fused = sum over the rest of a_i x_i

    The fused token is not normalised and later counts among the patches. Kept tokens stay in their order, where
    the authors' code sorts them by score. Another score takes the place of a_i as a share of its sum over patches.

    Args:
        num_kept: Patches kept; all of them is the identity.
        fuse: Whether the others live on as one token.
        num_prefix: Protected leading tokens.
        score: What ranks and weighs.
    """

    def __init__(self, num_kept: int, *, fuse: bool, num_prefix: int, score: str = "cls_attention") -> None:
        self.num_kept = num_kept
        self.fuse = fuse
        self.num_prefix = num_prefix
        self.score = score

    def __call__(
        self, x_BND: Tensor, attention: AttentionState, size_BN: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Reduce; sizes are not tracked."""
        kept, num_prefix = self.num_kept, self.num_prefix
        if kept >= x_BND.shape[1] - num_prefix:
            return x_BND, size_BN
        scores_BP = SCORE_KERNELS[self.score](x_BND, attention, num_prefix)
        if self.score != "cls_attention":
            scores_BP = shares(scores_BP)
        kept_BM, rest_BR = split_by_score(scores_BP, kept)
        prefix_BpD, patches_BPD = x_BND[:, :num_prefix], x_BND[:, num_prefix:]
        kept_BMD = gather_tokens(patches_BPD, kept_BM)
        if not self.fuse:
            return torch.cat([prefix_BpD, kept_BMD], dim=1), None
        weights_BR1 = scores_BP.gather(1, rest_BR).unsqueeze(-1)
        fused_B1D = (gather_tokens(patches_BPD, rest_BR) * weights_BR1).sum(dim=1, keepdim=True)
        return torch.cat([prefix_BpD, kept_BMD, fused_B1D], dim=1), None


def build_evit(rule: EViT, architecture: Architecture) -> dict[int, TokenReducer]:
    """One reducer for each block that keeps fewer patches than reach it."""
    prefix = architecture.num_prefix_tokens
    return {
        block: EViTReducer(kept, fuse=rule.fuse, num_prefix=prefix, score=rule.score)
        for block, (patches, kept) in rule.kept_per_block(architecture).items()
        if kept < patches
    }
