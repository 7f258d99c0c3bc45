"""Token Merging: settings and arithmetic. Bolya et al., *Token Merging: Your ViT But Faster*, ICLR 2023."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.tokens.rule import Blocks, NoReduction, TokenRule, check_blocks, max_merges
from vitsearch.candidate.widths import BlockWidths


class ToMe(TokenRule):
    """Merge r tokens after the attention of each chosen block.

    Attributes:
        r: Tokens to merge per block, averaged over the chosen blocks; at most half the patches. Later blocks
            merge no more than half of what is left.
        schedule: ``constant``; ``decreasing`` linearly from 2r to 0; ``increasing`` from 0 to 2r.
        blocks: Chosen blocks, from 1; every block when left out.
    """

    reducer: Literal["tome"] = "tome"
    r: Annotated[int, Field(ge=0)]
    schedule: Literal["constant", "decreasing", "increasing"] = "constant"
    blocks: Blocks | None = None

    @classmethod
    def identity(cls) -> Self:
        """No merges."""
        return cls(r=0)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Every schedule, as much as there is, and chosen blocks."""
        return (
            cls(r=3),
            cls(r=4, schedule="decreasing"),
            cls(r=4, schedule="increasing"),
            cls(r=12),
            cls(r=2, blocks=(2, 4)),
        )

    @property
    def sees_positions(self) -> bool:
        """Yes: tokens on odd places are matched with those on even ones."""
        return True

    def resolved(self, architecture: Architecture) -> Self | NoReduction:
        """Defaults written out; no reduction at r = 0."""
        limit = max_merges(architecture.num_tokens, architecture.num_prefix_tokens)
        if self.r > limit:
            raise ValueError(
                f"tome r must be at most (tokens - protected) // 2 = {limit}, but got r={self.r}; "
                f"lower r or choose a smaller patch_size"
            )
        blocks = self.active_blocks(architecture.depth)
        check_blocks(blocks, architecture.depth, "tome")
        schedule = self.schedule if len(blocks) > 1 else "constant"
        full = self.model_copy(update={"blocks": blocks, "schedule": schedule})
        return full if full.token_counts(architecture)[-1] < architecture.num_tokens else NoReduction()

    def active_blocks(self, depth: int) -> tuple[int, ...]:
        """The chosen blocks."""
        return self.blocks or tuple(range(1, depth + 1))

    def rate(self, block: int, depth: int) -> int:
        """Merges asked of ``block`` before the limit of half the tokens applies."""
        blocks = self.active_blocks(depth)
        if self.schedule == "constant" or len(blocks) == 1:
            return self.r
        position = blocks.index(block) / (len(blocks) - 1)
        share = 1 - position if self.schedule == "decreasing" else position
        return int(2 * self.r * share + 0.5)

    def tokens_after(self, num_tokens: int, architecture: Architecture, block: int) -> int:
        """N - min(r, (N - protected) // 2)."""
        limit = max_merges(num_tokens, architecture.num_prefix_tokens)
        return num_tokens - min(self.rate(block, architecture.depth), limit)

    def extra_macs(self, num_tokens: int, architecture: Architecture, block: int, widths: BlockWidths) -> int:
        """Similarities of the two halves: ceil(N/2) * floor(N/2) * qk_dim."""
        removes = self.tokens_after(num_tokens, architecture, block) < num_tokens
        return matching_macs(num_tokens, widths) if removes else 0


def matching_macs(num_tokens: int, widths: BlockWidths) -> int:
    """MACs of one bipartite matching on keys averaged over heads."""
    return ((num_tokens + 1) // 2) * (num_tokens // 2) * widths.qk_dim
