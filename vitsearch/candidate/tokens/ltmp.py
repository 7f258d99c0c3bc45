"""LTMP: settings and arithmetic. Bonnaerens and Dambre, *Learned Thresholds Token Merging and Pruning*, 2023."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.tokens.blocks import every_block
from vitsearch.candidate.tokens.ragged import RaggedRule
from vitsearch.candidate.tokens.rule import LearnedPart, NoReduction
from vitsearch.candidate.tokens.score import SCORES
from vitsearch.candidate.tokens.tome import matching_macs
from vitsearch.candidate.widths import BlockWidths


class LTMP(RaggedRule):
    """Merge patches more alike than a learned threshold, then drop those attended to less than another.

    Attributes:
        target: Share of the MACs of the network without it that its thresholds are trained towards, on average
            over images; 1 is the identity.
        blocks: Chosen blocks; all when left out.
    """

    averages: ClassVar[bool] = False  # an image may merge and drop in one block

    reducer: Literal["ltmp"] = "ltmp"
    target: Annotated[float, Field(gt=0, le=1)] = 0.7

    @classmethod
    def identity(cls) -> Self:
        """All MACs."""
        return cls(target=1.0)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """In every block, and in a few."""
        return cls(target=0.6), cls(target=0.8, blocks=(2, 3))

    @classmethod
    def default_blocks(cls, depth: int) -> tuple[int, ...]:
        """Every block."""
        return every_block(depth)

    @property
    def sees_positions(self) -> bool:
        """Yes: patches on odd places are matched with those on even ones."""
        return True

    @property
    def learns(self) -> bool:
        """Yes."""
        return True

    def learned_part(self, architecture: Architecture, width: int) -> LearnedPart:  # noqa: ARG002
        """Two thresholds."""
        return LearnedPart(others=2)

    def resolved(self, architecture: Architecture) -> Self | NoReduction:
        """The blocks written out; no reduction at a target of 1."""
        self.check_blocks(architecture)
        if self.target == 1:
            return NoReduction()
        return self.model_copy(update={"blocks": self.active_blocks(architecture.depth)})

    def extra_macs(self, num_tokens: int, architecture: Architecture, block: int, widths: BlockWidths) -> int:  # noqa: ARG002
        """The matching, and the attention matrix that tells how much each patch is attended to."""
        received = SCORES["attention_received"].macs(num_tokens, widths)
        return matching_macs(num_tokens, widths) + received
