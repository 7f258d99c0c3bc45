"""Learned thresholds for merging and pruning on a running network, and what trains them.

Shape suffixes: B batch, N tokens, P patches, a even tokens, b odd tokens, K width of one head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitsearch.candidate import LTMP, Architecture, products
from vitsearch.compress.tokens.ragged import at_least_one, compacted, present
from vitsearch.compress.tokens.scores import attention_BHNN, ones_unless
from vitsearch.models import AttentionState, TokenReducer, VisionTransformer
from vitsearch.train.batches import Batch
from vitsearch.train.losses import LossTerm, Outputs

SLOPE = 0.1  # of the sigmoid that stands for a step in derivatives
GAIN = 50.0  # thresholds move this much faster than weights do at the recipe's learning rate
TARGET_WEIGHT = 10.0


class LTMPReducer(nn.Module):
    """Merges patches that are alike and drops those that are little attended to.

    The rule (Bonnaerens and Dambre, 2023), with A the even and B the odd tokens and m the mean key of all
    heads::

        a in A goes into its b of the largest cos(m_a, m_b) if that exceeds t_merge:  x <- sum(s x) / sum(s)
        then i is dropped if its attention, N / (H N) sum over heads and queries j of A[j, i], is below t_drop
        d step(v - t) := d sigmoid((v - t) / 0.1)     (straight-through)

    Attention counts relative to its mean, which is 1 at any number of tokens N. A dropped or merged token has size
    0 and goes behind the others; while thresholds learn it stays there, and sizes carry their derivatives into the
    attention of later blocks. The thresholds begin where nothing leaves. Prefix tokens and the patch that is
    attended to most stay.

    Args:
        num_prefix: Leading tokens.
    """

    def __init__(self, num_prefix: int) -> None:
        super().__init__()
        self.num_prefix = num_prefix
        self.merge = nn.Parameter(torch.zeros(()))
        self.drop = nn.Parameter(torch.zeros(()))
        self.left: Tensor | None = None  # the share of its tokens that the latest training pass has left

    @property
    def merge_threshold(self) -> Tensor:
        """Cosine above which patches merge."""
        return 1 - GAIN * self.merge

    @property
    def drop_threshold(self) -> Tensor:
        """Attention below which patches are dropped, relative to the mean."""
        return GAIN * self.drop

    def decide(self, v: Tensor) -> Tensor:
        """1 where v > 0, else 0; with a derivative while the network trains."""
        return step(v) if self.training else (v > 0).to(v.dtype)

    def forward(
        self, x_BND: Tensor, attention: AttentionState, size_BN: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Merge, then drop."""
        size_BN = ones_unless(size_BN, x_BND)
        there_BN = present(size_BN)
        left_BN = there_BN.to(size_BN.dtype)
        x_BND, size_BN, left_BN = self._merged(x_BND, attention, size_BN, left_BN)
        received_BN = attention_BHNN(attention).mean(dim=1).sum(dim=1)
        stays_BP = self.decide(received_BN[:, self.num_prefix :] - self.drop_threshold)
        alive_BP = present(size_BN[:, self.num_prefix :])
        ranked_BP = received_BN[:, self.num_prefix :].masked_fill(~alive_BP, -torch.inf)
        stays_BP = torch.where(at_least_one(torch.zeros_like(alive_BP), ranked_BP), 1.0, stays_BP)
        stays_BN = torch.cat([torch.ones_like(size_BN[:, : self.num_prefix]), stays_BP.to(size_BN.dtype)], dim=1)
        size_BN, left_BN = size_BN * stays_BN, left_BN * stays_BN
        if self.training:
            self.left = left_BN.sum() / there_BN.sum()
        x_BMD, size_BM = compacted(x_BND, size_BN)
        return x_BMD, size_BM

    def _merged(
        self, x_BND: Tensor, attention: AttentionState, size_BN: Tensor, left_BN: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens at their places, their sizes, and where tokens are left."""
        prefix, there_BN = self.num_prefix, present(size_BN)
        if x_BND.shape[1] < 2:
            return x_BND, size_BN, left_BN  # one token has none to go into
        metric_BNK = F.normalize(attention.k_BHNK.mean(dim=1), dim=-1)
        free_BN = there_BN & (torch.arange(x_BND.shape[1], device=x_BND.device) >= prefix)
        scores_Bab = metric_BNK[:, ::2] @ metric_BNK[:, 1::2].transpose(1, 2)
        scores_Bab = scores_Bab.masked_fill(~free_BN[:, None, 1::2], -2.0)
        best_Ba, target_Ba = scores_Bab.max(dim=-1)
        goes_Ba = self.decide(best_Ba - self.merge_threshold) * (free_BN[:, ::2] & (best_Ba > -2))
        goes_Ba = goes_Ba.to(size_BN.dtype)
        moves_Ba = size_BN[:, ::2] * goes_Ba
        sizes_Bb = size_BN[:, 1::2].scatter_add(1, target_Ba, moves_Ba)
        moves_BaD = x_BND[:, ::2] * moves_Ba.unsqueeze(-1)
        index_BaD = target_Ba.unsqueeze(-1).expand_as(moves_BaD)
        sums_BbD = (x_BND[:, 1::2] * size_BN[:, 1::2].unsqueeze(-1)).scatter_add(1, index_BaD, moves_BaD)
        total_Bb1 = sizes_Bb.unsqueeze(-1)
        odd_BbD = torch.where(total_Bb1 > 0, sums_BbD / total_Bb1.clamp_min(1e-12), x_BND[:, 1::2])
        x_BND, size_BN = _woven(x_BND[:, ::2], odd_BbD), _woven(size_BN[:, ::2] - moves_Ba, sizes_Bb)
        return x_BND, size_BN, _woven(left_BN[:, ::2] * (1 - goes_Ba), left_BN[:, 1::2])


def step(v: Tensor) -> Tensor:
    """1 where v > 0, else 0; its derivative is that of sigmoid(v / 0.1)."""
    soft, hard = (v / SLOPE).sigmoid(), (v > 0).to(v.dtype)
    return hard + (soft - soft.detach())  # in brackets it is 0, and the sum exactly 0 or 1


def _woven(even: Tensor, odd: Tensor) -> Tensor:
    """Even and odd places (B, a, ...) and (B, b, ...) back in order."""
    num_even, total = even.shape[1], even.shape[1] + odd.shape[1]
    places_N = torch.arange(total, device=even.device)
    return torch.cat([even, odd], dim=1)[:, places_N // 2 + places_N % 2 * num_even]


def build_ltmp(rule: LTMP, architecture: Architecture) -> dict[int, TokenReducer]:
    """One reducer for each chosen block; none at a target of 1."""
    if rule.target == 1:
        return {}
    return {block: LTMPReducer(architecture.num_prefix_tokens) for block in rule.active_blocks(architecture.depth)}


@contextmanager
def ltmp_losses(
    model: VisionTransformer,
    rule: LTMP,
    teacher: VisionTransformer,  # noqa: ARG001
) -> Iterator[tuple[LossTerm, ...]]:
    """What is added to the recipe's loss while thresholds train.

    L = 10 (r - target)^2, see ``macs_loss``.

    Args:
        model: With the reducers.
        rule: Its target.
        teacher: Unused.
    """
    reducers = {n: b.reducer for n, b in enumerate(model.blocks, 1) if isinstance(b.reducer, LTMPReducer)}
    try:
        yield (macs_loss(model, reducers, rule.target),) if reducers else ()
    finally:
        for reducer in reducers.values():
            reducer.left = None


class LeavesShare(Protocol):
    """A reducer that knows which share of its tokens it has left in the latest training pass."""

    left: Tensor | None


def macs_loss(model: VisionTransformer, reducers: Mapping[int, LeavesShare], target: float) -> LossTerm:
    """L = 10 (r - target)^2.

    r are the MACs of the blocks' linear layers and attention products at the mean number of tokens left in the
    batch, as a share of those at all tokens.

    Args:
        model: Its widths.
        reducers: By block, from 1.
        target: The share wanted.
    """
    whole = model.architecture.self_attention_part.num_tokens
    dense = products(model.widths, (whole,) * (len(model.blocks) + 1))

    def loss(outputs: Outputs, batch: Batch) -> Tensor:  # noqa: ARG001
        now: Tensor | float = float(whole)
        spent: Tensor | float = 0.0
        for number, widths in enumerate(model.widths, start=1):
            before, reducer = now, reducers.get(number)
            if reducer is not None and reducer.left is not None:
                now = before * reducer.left
            spent = spent + widths.linear_macs(before, now) + widths.attention_macs(before)
        assert isinstance(spent, Tensor)
        return TARGET_WEIGHT * (spent / dense - target).square()

    return loss
