"""DiffRate with learned rates: settings and arithmetic. Chen et al., *DiffRate*, ICCV 2023."""

from __future__ import annotations

from typing import Literal, Self

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.tokens.rule import CostKind, LearnedPart, NoReduction
from vitsearch.candidate.tokens.score import ScoredRule
from vitsearch.candidate.tokens.targeted import TargetedRule
from vitsearch.candidate.widths import BlockWidths


class DiffRateLearned(TargetedRule, ScoredRule):
    """``diffrate`` whose rates in each block train with the network."""

    reducer: Literal["diffrate_learned"] = "diffrate_learned"

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """In every block, in a few, and without a CLS token."""
        return cls(target=0.6), cls(target=0.8, blocks=(2, 3), score="entropy")

    @property
    def cost_kind(self) -> CostKind:
        """What is learned is the same for all images."""
        return "measured"

    def learned_part(self, architecture: Architecture, width: int) -> LearnedPart:
        """A logit for each number of patches that may be pruned, and likewise merged; and its score's."""
        score = super().learned_part(architecture, width)
        rates = 2 * architecture.num_patches
        return LearnedPart(
            weights=score.weights, others=score.others + rates, products=score.products, norms=score.norms
        )

    def resolved(self, architecture: Architecture) -> Self | NoReduction:
        """As other rules with a target, where the score can be had."""
        self.check_score(architecture)
        return super().resolved(architecture)

    def extra_macs(self, num_tokens: int, architecture: Architecture, block: int, widths: BlockWidths) -> int:  # noqa: ARG002
        """The score, and the cosines of all patches."""
        patches = num_tokens - architecture.num_prefix_tokens
        return self.score_macs(num_tokens, widths) + patches * patches * widths.width
