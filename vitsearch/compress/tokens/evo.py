"""Evo-ViT's slow and fast tokens on a running network."""

from __future__ import annotations

import torch
from torch import Tensor

from vitsearch.candidate import Architecture, EvoViT
from vitsearch.compress.tokens.kernels import gather_tokens
from vitsearch.compress.tokens.scores import shares, split_by_score
from vitsearch.models import AttentionState, Block, TokenReducer, TokenRoute, TokenState


class EvoRoute(TokenRoute):
    """Runs one block on the patches of the largest running CLS attention.

    The rule (Xu et al., 2022), with g the running attention::

        keep the k patches of the largest g;  r = sum over the others of g_i x_i / sum g_i
        prefix, kept, r <- block(prefix, kept, r);  each other x_i += the block's change of r
        g <- 0.5 g + 0.5 mean_h A[cls, :] for the patches that were computed; first g = mean_h A[cls, :]

    Tokens keep their places. The next block's route is handed g.

    Args:
        num_kept: Patches the block computes; None for all.
        updates: Whether a later block needs g.
        num_prefix: Tokens that every block computes.
    """

    def __init__(self, num_kept: int | None, *, updates: bool, num_prefix: int) -> None:
        self.num_kept = num_kept
        self.updates = updates
        self.num_prefix = num_prefix

    def run(self, block: Block, state: TokenState) -> TokenState:
        """Run; the memory is g (B, P)."""
        prefix, x_BND, memory_BP = self.num_prefix, state.x_BND, state.memory
        assert memory_BP is None or isinstance(memory_BP, Tensor)
        if self.num_kept is None:
            x_BND, attention = block.attend(x_BND, None)
            memory_BP = self._updated(memory_BP, attention, x_BND.shape[1] - prefix)
            return TokenState(block.mix_channels(x_BND), None, memory_BP)
        assert memory_BP is not None, "the first block computes every token"
        kept_BM, rest_BR = split_by_score(memory_BP, self.num_kept)
        patches_BPD = x_BND[:, prefix:]
        rest_BRD = gather_tokens(patches_BPD, rest_BR)
        weight_BR1 = shares(memory_BP.gather(1, rest_BR)).unsqueeze(-1).to(x_BND.dtype)
        representative_B1D = (rest_BRD * weight_BR1).sum(dim=1, keepdim=True)
        slow_BSD = torch.cat([x_BND[:, :prefix], gather_tokens(patches_BPD, kept_BM), representative_B1D], dim=1)
        slow_BSD, attention = block.attend(slow_BSD, None)
        slow_BSD = block.mix_channels(slow_BSD)
        fast_BPD = patches_BPD + (slow_BSD[:, -1:] - representative_B1D)
        index_BMD = kept_BM.unsqueeze(-1).expand(-1, -1, x_BND.shape[-1])
        patches_BPD = fast_BPD.scatter(1, index_BMD, slow_BSD[:, prefix:-1])
        if self.updates:
            now_BM = self._updated(memory_BP.gather(1, kept_BM), attention, self.num_kept)
            assert now_BM is not None
            memory_BP = memory_BP.scatter(1, kept_BM, now_BM)
        return TokenState(torch.cat([slow_BSD[:, :prefix], patches_BPD], dim=1), None, memory_BP)

    def _updated(self, memory_BP: Tensor | None, attention: AttentionState, num_patches: int) -> Tensor | None:
        if not self.updates:
            return memory_BP
        new_BP = attention.cls_attention_BHN().mean(dim=1)[:, self.num_prefix : self.num_prefix + num_patches]
        return new_BP if memory_BP is None else 0.5 * memory_BP + 0.5 * new_BP


def build_evo(rule: EvoViT, architecture: Architecture) -> dict[int, TokenReducer | TokenRoute]:
    """A route for each block up to the last chosen one; nothing when every patch is computed."""
    chosen = rule.active_blocks(architecture.depth)
    kept = rule.num_kept(architecture)
    if kept == architecture.num_patches or not chosen:
        return {}
    return {
        block: EvoRoute(
            kept if block in chosen else None,
            updates=block < chosen[-1],
            num_prefix=architecture.num_prefix_tokens,
        )
        for block in range(1, chosen[-1] + 1)
    }
