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


def ats_scores(cls_attention_BHN: Tensor, v_BHNK: Tensor, num_prefix: int) -> Tensor:
    """score_i = sum_h A[cls, i] * norm(v_i), heads of v concatenated, normalised over patches; (B, patches).

    Multiplying all v by a constant leaves the scores unchanged.
    """
    attention_BN = cls_attention_BHN.sum(dim=1)[:, num_prefix:]
    norms_BN = v_BHNK.square().sum(dim=(1, 3)).sqrt()[:, num_prefix:]
    raw_BN = attention_BN * norms_BN
    return raw_BN / raw_BN.sum(dim=-1, keepdim=True)
