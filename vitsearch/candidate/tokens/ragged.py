"""Rules by which every image keeps a number of tokens of its own."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.tokens.blocks import BlockwiseRule, canonical
from vitsearch.candidate.tokens.rule import CostKind, NoReduction
from vitsearch.candidate.tokens.score import ScoredRule
from vitsearch.candidate.widths import BlockWidths

Threshold = Annotated[float, Field(ge=0)]


class RaggedRule(BlockwiseRule):
    """A rule under which token counts depend on the image.

    All counts here are the fewest that any image can have, so that cost is a lower bound; a trial measures what
    the validation images have. In a batch every image gets as many places as the longest one, and those it does
    not need are empty: nothing attends to them.
    """

    @property
    def cost_kind(self) -> CostKind:
        """Known within bounds."""
        return "bounded"

    def fewest_after(self, architecture: Architecture) -> int:
        """The fewest tokens that leave a chosen block: prefix tokens and one patch."""
        return architecture.num_prefix_tokens + 1

    def tokens_after(self, num_tokens: int, architecture: Architecture, block: int) -> int:  # noqa: ARG002
        """The fewest."""
        return min(num_tokens, self.fewest_after(architecture))

    def budget_counts(self, architecture: Architecture) -> list[int]:
        """Every token: a share of MACs is one of the network that removes none."""
        return [architecture.num_tokens] * (architecture.depth + 1)


class RaggedScoredRule(RaggedRule, ScoredRule):
    """Such a rule that ranks patches by a score and has one deciding figure, for all chosen blocks or for each.

    Attributes:
        figure: The name of that setting.
        off: The figure that keeps every patch of a block.
    """

    figure: ClassVar[str]
    off: ClassVar[float]

    @property
    def compares_patches(self) -> bool:
        """Whether the cosines of all patches are computed."""
        return False

    def figure_of(self, block: int, depth: int) -> float:
        """The deciding figure of a chosen block."""
        found: float = self.at(getattr(self, self.figure), block, depth)
        return found

    def resolved(self, architecture: Architecture) -> Self | NoReduction:
        """The figures of the blocks that are not off; no reduction where all are."""
        self.check_score(architecture)
        self.check_blocks(architecture)
        depth = architecture.depth
        figures = {block: self.figure_of(block, depth) for block in self.active_blocks(depth)}
        acting = {block for block, value in figures.items() if value != self.off}
        return canonical(self, {self.figure: figures}, acting)

    def tokens_after(self, num_tokens: int, architecture: Architecture, block: int) -> int:
        """The fewest; all of them in a block that is off."""
        if self.figure_of(block, architecture.depth) == self.off:
            return num_tokens
        return super().tokens_after(num_tokens, architecture, block)

    def extra_macs(self, num_tokens: int, architecture: Architecture, block: int, widths: BlockWidths) -> int:
        """The score, and P^2 D for the cosines of all patches where they are compared."""
        if self.figure_of(block, architecture.depth) == self.off:
            return 0
        patches = num_tokens - architecture.num_prefix_tokens
        cosines = patches * patches * widths.width if self.compares_patches else 0
        return self.score_macs(num_tokens, widths) + cosines
