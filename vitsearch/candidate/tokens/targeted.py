"""Rules whose own figures train with the network, towards a share of its MACs."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.tokens.blocks import every_block
from vitsearch.candidate.tokens.ragged import RaggedRule
from vitsearch.candidate.tokens.rule import NoReduction


class TargetedRule(RaggedRule):
    """A rule that learns how many tokens leave each block.

    Attributes:
        target: Share of the MACs of the network without it that training aims at, on average over images; 1 is the
            identity.
        blocks: Chosen blocks; all when left out.
    """

    averages: ClassVar[bool] = False  # an image may merge and drop in one block

    target: Annotated[float, Field(gt=0, le=1)] = 0.7

    @classmethod
    def identity(cls) -> Self:
        """All MACs."""
        return cls.model_validate({"target": 1.0})

    @classmethod
    def default_blocks(cls, depth: int) -> tuple[int, ...]:
        """Every block."""
        return every_block(depth)

    @property
    def learns(self) -> bool:
        """Yes."""
        return True

    def resolved(self, architecture: Architecture) -> Self | NoReduction:
        """The blocks written out; no reduction at a target of 1."""
        self.check_blocks(architecture)
        if self.target == 1:
            return NoReduction()
        return self.model_copy(update={"blocks": self.active_blocks(architecture.depth)})
