"""Top-k selection: settings and arithmetic."""

from __future__ import annotations

from typing import Literal, Self

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.tokens.blocks import CountRule
from vitsearch.candidate.tokens.rule import NoReduction
from vitsearch.candidate.tokens.score import ScoredRule
from vitsearch.candidate.widths import BlockWidths


class TopK(CountRule, ScoredRule):
    """Keep the k patches of the highest score.

    Attributes:
        rest: The others ``drop``, or ``merge`` each into the most cosine-similar patch that is kept.
    """

    reducer: Literal["topk"] = "topk"
    rest: Literal["drop", "merge"] = "drop"

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """By number and by share, dropped and merged, by a schedule and for each block."""
        return (
            cls(keep=0.7),
            cls(k=9, rest="merge"),
            cls(k=(20, 11), blocks=(1, 3), score="ats"),
            cls(keep=0.6, schedule="increasing", rest="merge", score="attention_received"),
            cls(keep=(0.5, 0.9), blocks=(1, 2), score="attention_to_cls"),
        )

    @property
    def drops(self) -> bool:
        """Where it does not merge."""
        return self.rest == "drop"

    def resolved(self, architecture: Architecture) -> Self | NoReduction:
        """As ``CountRule`` says."""
        self.check_score(architecture)
        return super().resolved(architecture)

    def extra_macs(self, num_tokens: int, architecture: Architecture, block: int, widths: BlockWidths) -> int:
        """The score, and for a merge the similarities of kept and other patches."""
        kept = self.num_kept(num_tokens, architecture, block)
        others = num_tokens - architecture.num_prefix_tokens - kept
        if not others:
            return 0
        return self.score_macs(num_tokens, widths) + (
            nearest_macs(kept, others, widths) if self.rest == "merge" else 0
        )


def nearest_macs(num_kept: int, num_others: int, widths: BlockWidths) -> int:
    """MACs of the cosines between kept and other patches."""
    return num_kept * num_others * widths.width
