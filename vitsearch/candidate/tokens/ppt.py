"""PPT, prune or pool: settings and arithmetic. Wu et al., *PPT: Token Pruning and Pooling*, 2023."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.tokens.evit import cls_row_macs
from vitsearch.candidate.tokens.rule import (
    Blocks,
    NoReduction,
    TokenRule,
    check_blocks,
    max_merges,
    quarter_blocks,
)
from vitsearch.candidate.tokens.tome import matching_macs
from vitsearch.candidate.widths import BlockWidths


class PPT(TokenRule):
    """Remove r tokens at each chosen block: by pruning where scores vary, else by merging.

    Attributes:
        r: Tokens removed per chosen block; at most half the patches. Later blocks remove no more than half
            of what is left.
        tau: An image whose score variance exceeds this is pruned, any other is merged.
        blocks: Chosen blocks, from 1; 4, 7 and 10 of twelve when left out.
    """

    needs_class_token: ClassVar[bool] = True

    reducer: Literal["ppt"] = "ppt"
    r: Annotated[int, Field(ge=0)] = 50
    tau: Annotated[float, Field(ge=0)] = 7e-5
    blocks: Blocks | None = None

    @classmethod
    def identity(cls) -> Self:
        """Nothing removed."""
        return cls(r=0)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Always pruned, always merged, as much as there is."""
        return (
            cls(r=5, tau=0.0),
            cls(r=5, tau=1.0),
            cls(r=12, blocks=(1, 4)),
        )

    @property
    def sees_positions(self) -> bool:
        """Where it may merge."""
        return self.tau > 0

    def resolved(self, architecture: Architecture) -> Self | NoReduction:
        """Defaults written out; no reduction at r = 0."""
        if not architecture.class_token:
            raise ValueError("ppt needs a CLS token to score patches by; set class_token=true or choose tome")
        limit = max_merges(architecture.num_tokens, architecture.num_prefix_tokens)
        if self.r > limit:
            raise ValueError(
                f"ppt r must be at most (tokens - protected) // 2 = {limit}, but got r={self.r}; "
                f"lower r or choose a smaller patch_size"
            )
        blocks = self.active_blocks(architecture.depth)
        check_blocks(blocks, architecture.depth, "ppt")
        full = self.model_copy(update={"blocks": blocks})
        return full if full.token_counts(architecture)[-1] < architecture.num_tokens else NoReduction()

    def active_blocks(self, depth: int) -> tuple[int, ...]:
        """The chosen blocks."""
        return self.blocks or quarter_blocks(depth)

    def tokens_after(self, num_tokens: int, architecture: Architecture, block: int) -> int:  # noqa: ARG002
        """N - min(r, (N - protected) // 2), whichever way the tokens leave."""
        return num_tokens - min(self.r, max_merges(num_tokens, architecture.num_prefix_tokens))

    def extra_macs(self, num_tokens: int, architecture: Architecture, block: int, widths: BlockWidths) -> int:
        """The CLS row for the scores and the similarities for the merge; both run for every image."""
        if self.tokens_after(num_tokens, architecture, block) == num_tokens:
            return 0
        return cls_row_macs(num_tokens, widths) + matching_macs(num_tokens, widths)
