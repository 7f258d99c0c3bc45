"""Token scores as pure functions: the kernels of ``vitsearch.candidate.SCORES``.

Each takes the tokens after the attention's residual (B, N, D), what the attention computed, and the number of
prefix tokens, and returns one score for each patch, (B, P). In ``ats`` and ``entropy`` multiplying all v by a
constant changes nothing.

Shape suffixes: B batch, N tokens, P patches, D width, H heads, K width of one head.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vitsearch.models import AttentionState

Score = Callable[[Tensor, AttentionState, int], Tensor]


def cls_attention(x_BND: Tensor, attention: AttentionState, num_prefix: int) -> Tensor:  # noqa: ARG001
    """mean_h A[cls, i] (Liang et al., *EViT*, 2022); reads one row of A."""
    return attention.cls_attention_BHN().mean(dim=1)[:, num_prefix:]


def attention_to_cls(x_BND: Tensor, attention: AttentionState, num_prefix: int) -> Tensor:  # noqa: ARG001
    """mean_h A[i, cls]."""
    return attention_BHNN(attention)[..., 0].mean(dim=1)[:, num_prefix:]


def attention_received(x_BND: Tensor, attention: AttentionState, num_prefix: int) -> Tensor:  # noqa: ARG001
    """Sum over heads and all queries j of A[j, i] (Marin et al., *Token Pooling*, 2021)."""
    return attention_BHNN(attention).sum(dim=(1, 2))[:, num_prefix:]


def ats(x_BND: Tensor, attention: AttentionState, num_prefix: int) -> Tensor:  # noqa: ARG001
    """sum_h A[cls, i] * norm(v_i), normalised over patches (Fayyaz et al., *ATS*, 2022, Eq. 3); one row of A."""
    attention_BP = attention.cls_attention_BHN().sum(dim=1)[:, num_prefix:]
    return shares(attention_BP * _value_norms_BP(attention, num_prefix))


def entropy(x_BND: Tensor, attention: AttentionState, num_prefix: int) -> Tensor:  # noqa: ARG001
    """How widely a patch looks: mean_h of the entropy of A[i, :], times norm(v_i), normalised over patches."""
    A_BHNN = attention_BHNN(attention)
    log_BHNN = A_BHNN.clamp_min(torch.finfo(A_BHNN.dtype).tiny).log()  # 0 log 0 = 0
    entropy_BP = -(A_BHNN * log_BHNN).sum(dim=-1).mean(dim=1)[:, num_prefix:]
    return shares(entropy_BP * _value_norms_BP(attention, num_prefix))


def magnitude(x_BND: Tensor, attention: AttentionState, num_prefix: int) -> Tensor:  # noqa: ARG001
    """The Euclidean norm of the feature."""
    return x_BND[:, num_prefix:].square().sum(dim=-1).sqrt()


def learned(x_BND: Tensor, attention: AttentionState, num_prefix: int) -> Tensor:  # noqa: ARG001
    """What the reducer's own network makes of the features, see ``LearnedScoreReducer``."""
    assert attention.learned_score_BP is not None, "a reducer with a learned score is wrapped by build_reducers"
    return attention.learned_score_BP


SCORE_KERNELS: dict[str, Score] = {
    "cls_attention": cls_attention,
    "attention_to_cls": attention_to_cls,
    "attention_received": attention_received,
    "ats": ats,
    "entropy": entropy,
    "magnitude": magnitude,
    "learned": learned,
}


def attention_BHNN(attention: AttentionState) -> Tensor:
    """softmax(Q K^T / sqrt(K) + bias), all of it: only for scores that need it. Empty places look nowhere."""
    A_BHNN = attention.logits_BHMN().softmax(dim=-1)
    present_BN = attention.present_BN()
    return A_BHNN if present_BN is None else A_BHNN * present_BN[:, None, :, None]


def shares(scores_BP: Tensor) -> Tensor:
    """Scores divided by their sum over patches; zeros where all are zero."""
    return scores_BP / scores_BP.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(scores_BP.dtype).tiny)


def _value_norms_BP(attention: AttentionState, num_prefix: int) -> Tensor:
    return attention.v_BHNK.square().sum(dim=(1, 3)).sqrt()[:, num_prefix:]


def split_by_score(scores_BP: Tensor, num_kept: int) -> tuple[Tensor, Tensor]:
    """Positions of the best patches, ascending, and of the others, best first: (B, kept) and (B, P - kept)."""
    order_BP = scores_BP.argsort(dim=-1, descending=True)
    return order_BP[:, :num_kept].sort(dim=-1).values, order_BP[:, num_kept:]


def ones_unless(size_BN: Tensor | None, x_BND: Tensor) -> Tensor:
    """The sizes, or one for each token while they are not tracked."""
    return torch.ones_like(x_BND[..., 0]) if size_BN is None else size_BN
