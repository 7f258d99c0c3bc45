"""Token Merging on a running network."""

from __future__ import annotations

from torch import Tensor

from vitsearch.candidate import Architecture, ToMe
from vitsearch.compress.tokens.kernels import bipartite_matching, merge_order, merge_tokens
from vitsearch.compress.tokens.scores import ones_unless
from vitsearch.models import AttentionState, TokenReducer


class ToMeReducer:
    """Merges the r most similar token pairs of one block.

    The rule (Bolya et al., 2023; survey Eq. 27)::

        m = normalise(mean_h k),  x <- sum(s x) / sum(s),  s <- sum(s),  attention logits += log s

    Differs from the authors' code in the order of the output only where a distillation token must stay in front.

    Args:
        r: Tokens to merge, at most (N - protected) // 2; 0 is the identity.
        num_prefix: Protected leading tokens.
    """

    def __init__(self, r: int, num_prefix: int) -> None:
        self.r = r
        self.num_prefix = num_prefix

    def __call__(
        self, x_BND: Tensor, attention: AttentionState, size_BN: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Merge."""
        if self.r == 0:
            return x_BND, size_BN
        return merge_by_keys(x_BND, attention, size_BN, self.r, self.num_prefix)


def merge_by_keys(
    x_BND: Tensor, attention: AttentionState, size_BN: Tensor | None, r: int, num_prefix: int
) -> tuple[Tensor, Tensor]:
    """Match tokens by their keys averaged over heads and merge r of them; prefix tokens stay in front."""
    size_BN = ones_unless(size_BN, x_BND)
    matching = bipartite_matching(attention.k_BHNK.mean(dim=1), r, num_prefix)
    x_BMD, size_BM = merge_tokens(x_BND, size_BN, matching)
    # torch.jit.trace, which counts MACs, hands out sizes as tensors
    order = merge_order(int(matching.kept_Ba.shape[1]), num_prefix, int(x_BMD.shape[1]))
    if order is not None:
        x_BMD, size_BM = x_BMD[:, order], size_BM[:, order]
    return x_BMD, size_BM


def build_tome(rule: ToMe, architecture: Architecture) -> dict[int, TokenReducer]:
    """One reducer for each block that merges anything."""
    counts = rule.token_counts(architecture)
    removed = {block: counts[block - 1] - counts[block] for block in rule.active_blocks(architecture.depth)}
    return {block: ToMeReducer(r, architecture.num_prefix_tokens) for block, r in removed.items() if r}
