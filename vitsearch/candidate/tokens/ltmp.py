"""LTMP: settings and arithmetic. Bonnaerens and Dambre, *Learned Thresholds Token Merging and Pruning*, 2023."""

from __future__ import annotations

from typing import Literal, Self

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.tokens.rule import LearnedPart
from vitsearch.candidate.tokens.score import SCORES
from vitsearch.candidate.tokens.targeted import TargetedRule
from vitsearch.candidate.tokens.tome import matching_macs
from vitsearch.candidate.widths import BlockWidths


class LTMP(TargetedRule):
    """Merge patches more alike than a learned threshold, then drop those attended to less than another."""

    reducer: Literal["ltmp"] = "ltmp"

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """In every block, and in a few."""
        return cls(target=0.6), cls(target=0.8, blocks=(2, 3))

    @property
    def sees_positions(self) -> bool:
        """Yes: patches on odd places are matched with those on even ones."""
        return True

    def learned_part(self, architecture: Architecture, width: int) -> LearnedPart:  # noqa: ARG002
        """Two thresholds."""
        return LearnedPart(others=2)

    def extra_macs(self, num_tokens: int, architecture: Architecture, block: int, widths: BlockWidths) -> int:  # noqa: ARG002
        """The matching, and the attention matrix that tells how much each patch is attended to."""
        received = SCORES["attention_received"].macs(num_tokens, widths)
        return matching_macs(num_tokens, widths) + received
