"""DiffRate with learned rates on a running network, and what trains them.

Shape suffixes: B batch, N tokens, P patches, M of them kept, D width, C candidate rates.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitsearch.candidate import Architecture, DiffRateLearned
from vitsearch.compress.tokens.kernels import gather_tokens
from vitsearch.compress.tokens.ltmp import GAIN, macs_loss
from vitsearch.compress.tokens.ragged import scores_of_present
from vitsearch.compress.tokens.scores import SCORE_KERNELS, ones_unless
from vitsearch.models import AttentionState, TokenReducer, VisionTransformer
from vitsearch.train.losses import LossTerm

FIRST_SLOPE = 0.5  # of the logits over rates: hardly anything leaves at first


class DiffRateLearnedReducer(nn.Module):
    """Prunes and merges numbers of patches that are learned.

    The rule (Chen et al., 2023, Section 3.3), with the patches sorted by score, best first, at ranks t = 0, 1, ..,
    n of them left, and a softmax rho_k over the rates k = 0, ..., P - 1, one for pruning and one for merging::

        K = round(sum_k k rho_k);   the last K are pruned, then the last K' of the rest merge into the patch of the
        largest cosine before them:  x <- sum(s x) / sum(s)
        d [t < n - K] := d sum over k < n - t of rho_k     (straight-through)

    K is the same for all images, and after training a number. One patch stays.

    Args:
        num_places: P, patches that enter the network.
        num_prefix: Leading tokens; nothing merges into them.
        score: What sorts.
    """

    def __init__(self, num_places: int, *, num_prefix: int, score: str = "cls_attention") -> None:
        super().__init__()
        self.num_prefix, self.score = num_prefix, score
        first_C = -FIRST_SLOPE * torch.arange(num_places, dtype=torch.float32) / GAIN
        self.prune_C, self.merge_C = nn.Parameter(first_C.clone()), nn.Parameter(first_C.clone())
        self.left: Tensor | None = None  # the share of its tokens that the latest training pass has left
        self.register_load_state_dict_post_hook(lambda module, _: module.refresh())  # type: ignore[no-untyped-call]
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Read off the rates; as numbers, so that shapes are fixed in an export."""
        self.rates = tuple(
            int((_rho(one_C) * torch.arange(len(one_C), device=one_C.device)).sum().round())
            for one_C in (self.prune_C, self.merge_C)
        )

    def train(self, mode: bool = True) -> DiffRateLearnedReducer:
        """Follow the network; rates are read off when training ends."""
        super().train(mode)
        self.refresh()
        return self

    def forward(
        self, x_BND: Tensor, attention: AttentionState, size_BN: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Prune and merge."""
        prefix, size_BN = self.num_prefix, ones_unless(size_BN, x_BND)
        if self.training:
            self.refresh()
        scores_BP = SCORE_KERNELS[self.score](x_BND, attention, prefix)
        order_BP = scores_of_present(scores_BP, size_BN[:, prefix:]).argsort(dim=1, descending=True)
        left = int((size_BN[:1, prefix:] > 0).sum()) if self.training else int(order_BP.shape[1])
        pruned = min(self.rates[0], left - 1)
        merged = min(self.rates[1], left - pruned - 1)
        stays_P, keeps_P = self.survival(int(order_BP.shape[1]), left, pruned, merged, x_BND.dtype)
        patches_BPD, size_BP = gather_tokens(x_BND[:, prefix:], order_BP), size_BN[:, prefix:].gather(1, order_BP)
        kept_BPD, kept_BP = _merged(patches_BPD, size_BP, stays_P, keeps_P)
        if self.training:
            self.left = 1 - (1 - keeps_P[:left]).sum() / (left + prefix)
            rank_BM = order_BP.argsort(dim=1)
        else:
            rank_BM = order_BP[:, : left - pruned - merged].argsort(dim=1)
        kept_BMD, kept_BM = gather_tokens(kept_BPD, rank_BM), kept_BP.gather(1, rank_BM)
        return torch.cat([x_BND[:, :prefix], kept_BMD], dim=1), torch.cat([size_BN[:, :prefix], kept_BM], dim=1)

    def survival(
        self, places: int, left: int, pruned: int, merged: int, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Whether each rank is not pruned, and whether it is neither pruned nor merged, 1 or 0, (P,) each.

        Args:
            places: Ranks, P.
            left: Patches that are there, n.
            pruned: K.
            merged: K'.
            dtype: Of the results.
        """
        ranks_P = torch.arange(places, device=self.prune_C.device)
        stays_P = (ranks_P < left - pruned).to(dtype)
        keeps_P = (ranks_P < left - pruned - merged).to(dtype)
        if self.training:
            soft_P = _chance(_rho(self.prune_C), left - ranks_P)
            stays_P = stays_P + (soft_P - soft_P.detach())
            soft_P = _chance(_rho(self.merge_C), left - pruned - ranks_P)
            keeps_P = stays_P * (keeps_P + (soft_P - soft_P.detach()))
        return stays_P, keeps_P


def _rho(logits_C: Tensor) -> Tensor:
    """The softmax over rates."""
    return (GAIN * logits_C).softmax(dim=0)


def _chance(rho_C: Tensor, above_P: Tensor) -> Tensor:
    """Sum of rho_k over k < above, for each of some figures."""
    reached_C = F.pad(rho_C.cumsum(dim=0), (1, 0))
    return reached_C[above_P.clamp(0, len(rho_C))]


def _merged(x_BPD: Tensor, size_BP: Tensor, stays_P: Tensor, keeps_P: Tensor) -> tuple[Tensor, Tensor]:
    """Averages of the kept patches and of the merged ones that are most like them, and their sizes."""
    unit_BPD = F.normalize(x_BPD, dim=-1)
    target_BP = (unit_BPD @ unit_BPD.transpose(1, 2)).masked_fill(keeps_P < 0.5, -torch.inf).max(dim=-1).indices
    moves_BP = size_BP * (stays_P - keeps_P)
    sizes_BP = (size_BP * keeps_P).scatter_add(1, target_BP, moves_BP)
    index_BPD, moves_BPD = target_BP.unsqueeze(-1).expand_as(x_BPD), x_BPD * moves_BP.unsqueeze(-1)
    sums_BPD = (x_BPD * (size_BP * keeps_P).unsqueeze(-1)).scatter_add(1, index_BPD, moves_BPD)
    total_BP1 = sizes_BP.unsqueeze(-1)
    return torch.where(total_BP1 > 0, sums_BPD / total_BP1.clamp_min(1e-12), x_BPD), sizes_BP


def build_diffrate_learned(rule: DiffRateLearned, architecture: Architecture) -> dict[int, TokenReducer]:
    """One reducer for each chosen block; none at a target of 1."""
    if rule.target == 1:
        return {}
    prefix = architecture.num_prefix_tokens
    return {
        block: DiffRateLearnedReducer(architecture.num_patches, num_prefix=prefix, score=rule.score)
        for block in rule.active_blocks(architecture.depth)
    }


@contextmanager
def diffrate_losses(
    model: VisionTransformer,
    rule: DiffRateLearned,
    teacher: VisionTransformer,  # noqa: ARG001
) -> Iterator[tuple[LossTerm, ...]]:
    """What is added to the recipe's loss while rates train: that of ``ltmp_losses``.

    Args:
        model: With the reducers.
        rule: Its target.
        teacher: Unused.
    """
    reducers = {
        number: one
        for number, block in enumerate(model.blocks, start=1)
        for one in block.modules()
        if isinstance(one, DiffRateLearnedReducer)
    }
    try:
        yield (macs_loss(model, reducers, rule.target),) if reducers else ()
    finally:
        for one in reducers.values():
            one.left = None
