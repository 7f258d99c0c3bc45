"""Evo-ViT, slow and fast tokens: settings and arithmetic. Xu et al., *Evo-ViT*, AAAI 2022."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.tokens.blocks import BlockwiseRule, Share, plainest_shares, share_of
from vitsearch.candidate.tokens.rule import NoReduction
from vitsearch.candidate.tokens.score import SCORES
from vitsearch.candidate.widths import BlockWidths


class EvoViT(BlockwiseRule):
    """In chosen blocks only some patches are computed; one token stands for the others, which share its change.

    No token leaves for good: patches are ranked by a running CLS attention and may come back in a later block.

    Attributes:
        keep: Share of the patches that a chosen block computes; 1 is the identity.
        blocks: Chosen blocks; from the fifth of twelve on when left out. The first always computes every patch.
    """

    tracks_sizes: ClassVar[bool] = False

    reducer: Literal["evo"] = "evo"
    keep: Share = 0.5

    @classmethod
    def identity(cls) -> Self:
        """Every patch."""
        return cls(keep=1.0)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """To the end, in a few blocks, and almost nothing."""
        return cls(), cls(keep=0.7, blocks=(2, 4)), cls(keep=0.01, blocks=(3,))

    @classmethod
    def default_blocks(cls, depth: int) -> tuple[int, ...]:
        """Block 5 of twelve and all that follow."""
        return tuple(range(depth // 3 + 1, depth + 1))

    def active_blocks(self, depth: int) -> tuple[int, ...]:
        """The chosen blocks after the first, whose CLS attention ranks the patches."""
        return tuple(block for block in super().active_blocks(depth) if block > 1)

    @property
    def runs_blocks(self) -> bool:
        """Yes."""
        return True

    @property
    def needs_class_token(self) -> bool:
        """Yes: patches are ranked by what the CLS token attends to."""
        return True

    def num_kept(self, architecture: Architecture) -> int:
        """ceil(keep P), and at least one."""
        return share_of(architecture.num_patches, self.keep)

    def tokens_after(self, num_tokens: int, architecture: Architecture, block: int) -> int:  # noqa: ARG002
        """All of them."""
        return num_tokens

    def tokens_in(self, architecture: Architecture, block: int) -> int:
        """Tokens that ``block`` computes: prefix + kept + the one for the others in a chosen block."""
        kept = self.num_kept(architecture)
        if kept == architecture.num_patches or block not in self.active_blocks(architecture.depth):
            return architecture.num_tokens
        return architecture.num_prefix_tokens + kept + 1

    def token_counts(self, architecture: Architecture) -> list[int]:
        """Tokens that block 1, 2, ..., depth compute, and all that leave the last."""
        blocks = range(1, architecture.depth + 1)
        return [*(self.tokens_in(architecture, block) for block in blocks), architecture.num_tokens]

    def tokens_per_block(self, architecture: Architecture) -> list[tuple[int, int]]:
        """As many in the MLP as in the attention."""
        return [(n, n) for n in self.token_counts(architecture)[:-1]]

    def blocks_with_macs(self, depth: int) -> tuple[int, ...]:
        """All before the last chosen one: each leaves its CLS attention for the next choice."""
        return tuple(range(1, max(self.active_blocks(depth), default=1)))

    def resolved(self, architecture: Architecture) -> Self | NoReduction:
        """The plainest share that computes as many patches; no reduction when it computes all."""
        if not architecture.class_token:
            raise ValueError("evo needs a CLS token to rank patches by; set class_token=true or choose topk")
        self.check_blocks(architecture)
        blocks = self.active_blocks(architecture.depth)
        kept = self.num_kept(architecture)
        if kept == architecture.num_patches or not blocks:
            return NoReduction()
        return self.model_copy(
            update={"blocks": blocks, "keep": plainest_shares([(architecture.num_patches, kept)])[0]}
        )

    def extra_macs(self, num_tokens: int, architecture: Architecture, block: int, widths: BlockWidths) -> int:  # noqa: ARG002
        """The CLS row of the attention."""
        return SCORES["cls_attention"].macs(num_tokens, widths)
