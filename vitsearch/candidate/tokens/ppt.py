"""PPT, prune or pool: settings and arithmetic. Wu et al., *PPT: Token Pruning and Pooling*, 2023."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.tokens.blocks import Count, RemovalRule
from vitsearch.candidate.tokens.rule import NoReduction
from vitsearch.candidate.tokens.score import ScoredRule, ScoreName
from vitsearch.candidate.tokens.tome import matching_macs
from vitsearch.candidate.widths import BlockWidths


class PPT(RemovalRule, ScoredRule):
    """Remove r tokens at each chosen block: by pruning where scores vary, else by merging.

    Attributes:
        tau: An image whose score variance exceeds this is pruned, any other is merged.
    """

    reducer: Literal["ppt"] = "ppt"
    r: Count | tuple[Count, ...] = 50
    tau: Annotated[float, Field(ge=0)] = 7e-5
    score: ScoreName = "ats"

    @classmethod
    def identity(cls) -> Self:
        """Nothing removed."""
        return cls(r=0)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Always pruned, always merged, as much as there is, a rate for each, and without a CLS token."""
        return (
            cls(r=5, tau=0.0),
            cls(r=5, tau=1.0),
            cls(r=12, blocks=(1, 4)),
            cls(r=(2, 7), tau=0.0, blocks=(2, 3), score="entropy"),
        )

    @property
    def sees_positions(self) -> bool:
        """Where it may merge."""
        return self.tau > 0

    def resolved(self, architecture: Architecture) -> Self | NoReduction:
        """As ``RemovalRule`` says."""
        self.check_score(architecture)
        return super().resolved(architecture)

    def extra_macs(self, num_tokens: int, architecture: Architecture, block: int, widths: BlockWidths) -> int:
        """The scores, and the similarities for the merge; both run for every image."""
        if self.tokens_after(num_tokens, architecture, block) == num_tokens:
            return 0
        return self.score_macs(num_tokens, widths) + matching_macs(num_tokens, widths)
