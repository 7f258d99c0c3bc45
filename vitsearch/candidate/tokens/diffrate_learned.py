"""DiffRate with learned rates: settings and arithmetic. Chen et al., *DiffRate*, ICCV 2023."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.tokens.blocks import every_block
from vitsearch.candidate.tokens.ragged import RaggedRule
from vitsearch.candidate.tokens.rule import CostKind, LearnedPart, NoReduction
from vitsearch.candidate.tokens.score import ScoredRule
from vitsearch.candidate.widths import BlockWidths


class DiffRateLearned(RaggedRule, ScoredRule):
    """``diffrate`` whose rates in each block train with the network, towards a share of its MACs.

    Attributes:
        target: The share; 1 is the identity.
        blocks: Chosen blocks; all when left out.
    """

    averages: ClassVar[bool] = False  # an image drops and merges in one block

    reducer: Literal["diffrate_learned"] = "diffrate_learned"
    target: Annotated[float, Field(gt=0, le=1)] = 0.7

    @classmethod
    def identity(cls) -> Self:
        """All MACs."""
        return cls(target=1.0)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """In every block, in a few, and without a CLS token."""
        return cls(target=0.6), cls(target=0.8, blocks=(2, 3), score="entropy")

    @classmethod
    def default_blocks(cls, depth: int) -> tuple[int, ...]:
        """Every block."""
        return every_block(depth)

    @property
    def cost_kind(self) -> CostKind:
        """What is learned is the same for all images."""
        return "measured"

    @property
    def learns(self) -> bool:
        """Yes."""
        return True

    def learned_part(self, architecture: Architecture, width: int) -> LearnedPart:
        """A logit for each number of patches that may be pruned, and likewise merged; and its score's."""
        score = super().learned_part(architecture, width)
        rates = 2 * architecture.num_patches
        return LearnedPart(
            weights=score.weights, others=score.others + rates, products=score.products, norms=score.norms
        )

    def resolved(self, architecture: Architecture) -> Self | NoReduction:
        """The blocks written out; no reduction at a target of 1."""
        self.check_score(architecture)
        self.check_blocks(architecture)
        if self.target == 1:
            return NoReduction()
        return self.model_copy(update={"blocks": self.active_blocks(architecture.depth)})

    def extra_macs(self, num_tokens: int, architecture: Architecture, block: int, widths: BlockWidths) -> int:  # noqa: ARG002
        """The score, and the cosines of all patches."""
        patches = num_tokens - architecture.num_prefix_tokens
        return self.score_macs(num_tokens, widths) + patches * patches * widths.width
