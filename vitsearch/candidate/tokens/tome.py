"""Token Merging: settings and arithmetic. Bolya et al., *Token Merging: Your ViT But Faster*, ICLR 2023."""

from __future__ import annotations

from typing import Literal, Self

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.tokens.blocks import RemovalRule, every_block
from vitsearch.candidate.widths import BlockWidths


class ToMe(RemovalRule):
    """Merge r tokens after the attention of each chosen block; every block when none are named."""

    reducer: Literal["tome"] = "tome"

    @classmethod
    def identity(cls) -> Self:
        """No merges."""
        return cls(r=0)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Every schedule, as much as there is, chosen blocks, and a rate for each."""
        return (
            cls(r=3),
            cls(r=4, schedule="decreasing"),
            cls(r=4, schedule="increasing"),
            cls(r=12),
            cls(r=2, blocks=(2, 4)),
            cls(r=(5, 0, 3), blocks=(1, 2, 4)),
        )

    @classmethod
    def default_blocks(cls, depth: int) -> tuple[int, ...]:
        """Every block."""
        return every_block(depth)

    @property
    def drops(self) -> bool:
        """No."""
        return False

    @property
    def sees_positions(self) -> bool:
        """Yes: tokens on odd places are matched with those on even ones."""
        return True

    def extra_macs(self, num_tokens: int, architecture: Architecture, block: int, widths: BlockWidths) -> int:
        """Similarities of the two halves: ceil(N/2) * floor(N/2) * qk_dim."""
        removes = self.tokens_after(num_tokens, architecture, block) < num_tokens
        return matching_macs(num_tokens, widths) if removes else 0


def matching_macs(num_tokens: int, widths: BlockWidths) -> int:
    """MACs of one bipartite matching on keys averaged over heads."""
    return ((num_tokens + 1) // 2) * (num_tokens // 2) * widths.qk_dim
