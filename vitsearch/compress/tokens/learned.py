"""A score that a small network learns, for any reducer that takes a score.

Shape suffixes: B batch, N tokens, P patches, D width.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from vitsearch.candidate.tokens.score import score_hidden
from vitsearch.models import AttentionState, TokenReducer

EPS = 1e-6


class LearnedScoreReducer(nn.Module):
    """A reducer whose score is p_i = sigmoid(W2 gelu(W1 LayerNorm(x_i) + b1) + b2).

    Choosing tokens has no derivative. While the network trains, patch i is therefore multiplied by 1 + p_i - p_i*,
    p_i* being p_i as a constant: its value stays, and p_i gets the derivative of the loss along x_i, so that
    patches whose growth lowers the loss rank higher.

    Args:
        inner: The reducer; its score is ``learned``.
        width: D.
        num_prefix: Leading tokens, which are not scored.
    """

    def __init__(self, inner: TokenReducer, width: int, num_prefix: int) -> None:
        super().__init__()
        self.inner = inner
        self.num_prefix = num_prefix
        hidden = score_hidden(width)
        self.network = nn.Sequential(
            nn.LayerNorm(width, eps=EPS), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, 1)
        )

    def forward(
        self, x_BND: Tensor, attention: AttentionState, size_BN: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Score and reduce."""
        prefix_BpD, patches_BPD = x_BND[:, : self.num_prefix], x_BND[:, self.num_prefix :]
        score_BP = self.network(patches_BPD).squeeze(-1).sigmoid()
        if self.training:
            patches_BPD = patches_BPD * (1 + (score_BP - score_BP.detach())).unsqueeze(-1)
            x_BND = torch.cat([prefix_BpD, patches_BPD], dim=1)
        return self.inner(x_BND, replace(attention, learned_score_BP=score_BP), size_BN)
