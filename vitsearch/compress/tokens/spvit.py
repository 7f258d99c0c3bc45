"""SPViT's package token on a running network."""

from __future__ import annotations

import torch
from torch import Tensor

from vitsearch.candidate import Architecture, SPViT
from vitsearch.compress.tokens.kernels import gather_tokens
from vitsearch.compress.tokens.scores import SCORE_KERNELS, split_by_score
from vitsearch.models import AttentionState, TokenReducer


class SPViTReducer:
    """Keeps the patches of the highest score and averages the others into one token.

    The rule (Kong et al., 2022)::

        keep the ceil(keep (N - prefix)) best;  package = mean of the rest, the last token

    Args:
        num_kept: Patches kept; all of them is the identity.
        num_prefix: Protected leading tokens.
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
        return torch.cat([x_BND[:, :prefix], kept_BMD, rest_BRD.mean(dim=1, keepdim=True)], dim=1), None


def build_spvit(rule: SPViT, architecture: Architecture) -> dict[int, TokenReducer]:
    """One reducer for each block that keeps fewer patches than reach it."""
    return {
        block: SPViTReducer(kept, num_prefix=architecture.num_prefix_tokens, score=rule.score)
        for block, (patches, kept) in rule.kept_per_block(architecture).items()
        if kept < patches
    }
