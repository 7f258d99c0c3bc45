"""Pure functions on tokens of which every image keeps a number of its own.

A place without a token has size 0. Places that no image of the batch needs are given up, but for two cases: under
``torch.export``, whose shapes cannot depend on values, and while sizes are learned, all of them stay.

Shape suffixes: B batch, N places, P places of patches, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vitsearch.compress.tokens.kernels import gather_tokens


def present(size_BN: Tensor) -> Tensor:
    """Where there is a token, boolean."""
    return size_BN > 0


def compacted(x_BND: Tensor, size_BN: Tensor, *beside_BN: Tensor) -> tuple[Tensor, ...]:
    """Tokens, sizes and what stands beside them, in order, without the places that are empty in every image.

    An image's empty places come last, so that its tokens stand where they would in a batch of their own, whether
    places are given up or not.
    """
    there_BN = present(size_BN)
    keeps_all = size_BN.requires_grad or torch.compiler.is_exporting()
    longest = size_BN.shape[1] if keeps_all else int(there_BN.sum(dim=1).max())
    places_N = torch.arange(size_BN.shape[1], device=size_BN.device)
    key_BN = torch.where(there_BN, places_N, places_N + size_BN.shape[1])  # ONNX has no stable sort
    order_BM = key_BN.argsort(dim=1)[:, :longest]
    return gather_tokens(x_BND, order_BM), *(one_BN.gather(1, order_BM) for one_BN in (size_BN, *beside_BN))


def drop_others(x_BND: Tensor, size_BN: Tensor, keep_BP: Tensor, num_prefix: int) -> tuple[Tensor, Tensor]:
    """Prefix tokens and the patches that are kept.

    Args:
        x_BND: Tokens, prefix first.
        size_BN: Their sizes; empty places stay empty.
        keep_BP: Which patches stay, 1 or 0 or a boolean.
        num_prefix: Leading tokens, which stay.
    """
    size_BN = torch.cat([size_BN[:, :num_prefix], size_BN[:, num_prefix:] * keep_BP], dim=1)
    x_BMD, size_BM = compacted(x_BND, size_BN)
    return x_BMD, size_BM


def merge_others(x_BND: Tensor, size_BN: Tensor, keep_BP: Tensor, num_prefix: int) -> tuple[Tensor, Tensor]:
    """The same, but every other patch goes into the kept one of the largest cosine: x <- sum(s x) / sum(s).

    At least one patch of every image must be kept.
    """
    patches_BPD, size_BP = x_BND[:, num_prefix:], size_BN[:, num_prefix:]
    keep_BP = keep_BP & present(size_BP)
    unit_BPD = F.normalize(patches_BPD, dim=-1)
    cosine_BPP = (unit_BPD @ unit_BPD.transpose(1, 2)).masked_fill(~keep_BP[:, None], -torch.inf)
    target_BP = cosine_BPP.max(dim=-1).indices
    return pooled(x_BND, size_BN, keep_BP, target_BP, num_prefix)


def pooled(
    x_BND: Tensor, size_BN: Tensor, keep_BP: Tensor, target_BP: Tensor, num_prefix: int
) -> tuple[Tensor, Tensor]:
    """Averages of the kept patches and of those that go into them, weighted by size.

    Args:
        x_BND: Tokens, prefix first.
        size_BN: Their sizes.
        keep_BP: Which patches stay, boolean.
        target_BP: The place of a kept patch for every other one.
        num_prefix: Leading tokens, which stay as they are.
    """
    patches_BPD, size_BP = x_BND[:, num_prefix:], size_BN[:, num_prefix:]
    keeps_BP, goes_BP = keep_BP.to(size_BP.dtype), (~keep_BP).to(size_BP.dtype)
    mass_BPD = patches_BPD * size_BP.unsqueeze(-1)
    index_BPD = target_BP.unsqueeze(-1).expand_as(mass_BPD)
    sums_BPD = (mass_BPD * keeps_BP.unsqueeze(-1)).scatter_add(1, index_BPD, mass_BPD * goes_BP.unsqueeze(-1))
    sizes_BP = (size_BP * keeps_BP).scatter_add(1, target_BP, size_BP * goes_BP)
    total_BP1 = sizes_BP.unsqueeze(-1)
    averages_BPD = torch.where(total_BP1 > 0, sums_BPD / total_BP1.clamp_min(1e-12), patches_BPD)
    x_BND = torch.cat([x_BND[:, :num_prefix], averages_BPD], dim=1)
    x_BMD, size_BM = compacted(x_BND, torch.cat([size_BN[:, :num_prefix], sizes_BP], dim=1))
    return x_BMD, size_BM


def at_least_one(keep_BP: Tensor, scores_BP: Tensor) -> Tensor:
    """``keep_BP``, and the patch of the largest score."""
    best_B1 = scores_BP.argmax(dim=1, keepdim=True)
    return keep_BP.scatter(1, best_B1, torch.ones_like(best_B1, dtype=keep_BP.dtype))


def scores_of_present(scores_BP: Tensor, size_BP: Tensor) -> Tensor:
    """The scores, below every other at empty places."""
    return scores_BP.masked_fill(~present(size_BP), -torch.inf)
