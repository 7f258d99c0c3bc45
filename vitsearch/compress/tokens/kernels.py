"""Pure functions on tensors that choose, move and merge tokens.

Shape suffixes: B batch, N tokens, D width, H heads, K width of one head.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Matching(NamedTuple):
    """A bipartite matching: which even tokens merge into which odd ones.

    Attributes:
        merged_Br: Positions among the even tokens that are merged away, r of them.
        kept_Ba: Positions among the even tokens that stay, ascending.
        target_Br: Positions among the odd tokens they merge into.
    """

    merged_Br: Tensor
    kept_Ba: Tensor
    target_Br: Tensor


def gather_tokens(x_BND: Tensor, index_BM: Tensor) -> Tensor:
    """The tokens at ``index_BM``, shape (B, M, D)."""
    return x_BND.gather(1, index_BM.unsqueeze(-1).expand(-1, -1, x_BND.shape[-1]))


def bipartite_matching(metric_BNK: Tensor, r: int, num_prefix: int) -> Matching:
    """ToMe's bipartite soft matching (Bolya et al., 2023, Section 3).

    A = tokens at even positions, B = at odd ones. Each a in A links to its most cosine-similar b in B, and the r
    best links merge. Prefix tokens neither merge nor are merged into.

    Args:
        metric_BNK: Similarity features, usually keys averaged over heads; any norm.
        r: Links to keep, at most (N - num_prefix) // 2.
        num_prefix: Protected leading tokens.
    """
    metric_BNK = F.normalize(metric_BNK, dim=-1)
    even_BaK, odd_BbK = metric_BNK[:, ::2], metric_BNK[:, 1::2]
    scores_Bab = even_BaK @ odd_BbK.transpose(-1, -2)
    even_prefix, odd_prefix = (num_prefix + 1) // 2, num_prefix // 2
    if odd_prefix:
        protected_b = torch.arange(odd_BbK.shape[1], device=metric_BNK.device) < odd_prefix
        scores_Bab = scores_Bab.masked_fill(protected_b, -torch.inf)
    best_Ba, target_Ba = scores_Bab.max(dim=-1)
    if even_prefix:
        protected_a = torch.arange(even_BaK.shape[1], device=metric_BNK.device) < even_prefix
        best_Ba = best_Ba.masked_fill(protected_a, -torch.inf)
    order_Ba = best_Ba.argsort(dim=-1, descending=True)
    merged_Br = order_Ba[:, :r]
    kept_Ba = order_Ba[:, r:].sort(dim=-1).values
    return Matching(merged_Br, kept_Ba, target_Ba.gather(1, merged_Br))


def merge_tokens(x_BND: Tensor, size_BN: Tensor, matching: Matching) -> tuple[Tensor, Tensor]:
    """Size-weighted averages along a matching: x = sum(s x) / sum(s), s = sum(s).

    The remaining even tokens come first, in order, then all odd tokens, in order; with a CLS token it stays first.
    A distillation token at position 1 moves behind it, so prefix tokens stay in front.

    Args:
        x_BND: Tokens.
        size_BN: Their sizes.
        matching: From ``bipartite_matching`` on the same tokens.

    Returns:
        Tokens (B, N - r, D) and sizes (B, N - r).
    """
    mass_BND = x_BND * size_BN.unsqueeze(-1)
    mass_BNE = torch.cat([mass_BND, size_BN.unsqueeze(-1)], dim=-1)  # masses and sizes move together
    even_BaE, odd_BbE = mass_BNE[:, ::2], mass_BNE[:, 1::2]
    index_BrE = matching.target_Br.unsqueeze(-1).expand(-1, -1, mass_BNE.shape[-1])
    odd_BbE = odd_BbE.scatter_add(1, index_BrE, gather_tokens(even_BaE, matching.merged_Br))
    out_BME = torch.cat([gather_tokens(even_BaE, matching.kept_Ba), odd_BbE], dim=1)
    size_BM = out_BME[..., -1]
    return out_BME[..., :-1] / size_BM.unsqueeze(-1), size_BM


def merge_order(num_kept_even: int, num_prefix: int, num_out: int) -> list[int] | None:
    """Permutation that puts prefix tokens back in front after ``merge_tokens``; None when they are there."""
    if num_prefix < 2:
        return None
    prefix = [i // 2 if i % 2 == 0 else num_kept_even + i // 2 for i in range(num_prefix)]
    return [*prefix, *(i for i in range(num_out) if i not in set(prefix))]


def nearest_kept(rest_BRD: Tensor, kept_BMD: Tensor) -> tuple[Tensor, Tensor]:
    """For each token of the rest, the largest cosine with a kept token, and whose it is; (B, R) each."""
    cosines_BRM = F.normalize(rest_BRD, dim=-1) @ F.normalize(kept_BMD, dim=-1).transpose(-1, -2)
    best_BR, target_BR = cosines_BRM.max(dim=-1)
    return best_BR, target_BR


def merge_into(
    kept_BMD: Tensor, size_BM: Tensor, rest_BRD: Tensor, size_BR: Tensor, target_BR: Tensor
) -> tuple[Tensor, Tensor]:
    """Averages of each kept token and the tokens that go into it, weighted by size, and their sizes together.

    Args:
        kept_BMD: Tokens that stay.
        size_BM: Their weights.
        rest_BRD: Tokens that merge.
        size_BR: Their weights.
        target_BR: Where to, as positions among those that stay.
    """
    size_BM1, size_BR1 = size_BM.unsqueeze(-1), size_BR.unsqueeze(-1)
    mass_BME = torch.cat([kept_BMD * size_BM1, size_BM1], dim=-1)  # masses and sizes move together
    mass_BRE = torch.cat([rest_BRD * size_BR1, size_BR1], dim=-1)
    out_BME = mass_BME.scatter_add(1, target_BR.unsqueeze(-1).expand_as(mass_BRE), mass_BRE)
    return out_BME[..., :-1] / out_BME[..., -1:], out_BME[..., -1]


def keep_and_merge(
    x_BND: Tensor, size_BN: Tensor, kept_BM: Tensor, merged_BR: Tensor | None, num_prefix: int
) -> tuple[Tensor, Tensor]:
    """Prefix tokens and kept patches, into the nearest of which others merge; what is in neither is dropped.

    Args:
        x_BND: Tokens, prefix first.
        size_BN: Their sizes.
        kept_BM: Positions among the patches of those that stay.
        merged_BR: Positions of those that merge, or None.
        num_prefix: Leading tokens, which stay as they are.

    Returns:
        Tokens (B, prefix + M, D) and their sizes.
    """
    patches_BPD, size_BP = x_BND[:, num_prefix:], size_BN[:, num_prefix:]
    kept_BMD, sizes_BM = gather_tokens(patches_BPD, kept_BM), size_BP.gather(1, kept_BM)
    if merged_BR is not None:
        merged_BRD = gather_tokens(patches_BPD, merged_BR)
        _, target_BR = nearest_kept(merged_BRD, kept_BMD)
        kept_BMD, sizes_BM = merge_into(kept_BMD, sizes_BM, merged_BRD, size_BP.gather(1, merged_BR), target_BR)
    return (
        torch.cat([x_BND[:, :num_prefix], kept_BMD], dim=1),
        torch.cat([size_BN[:, :num_prefix], sizes_BM], dim=1),
    )
