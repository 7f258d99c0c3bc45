"""IA-RED2: settings and arithmetic. Pan et al., *IA-RED2: Interpretability-Aware Redundancy Reduction*, 2021."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.tokens.ragged import RaggedRule
from vitsearch.candidate.tokens.rule import LearnedPart, NoReduction
from vitsearch.candidate.tokens.score import LAYER_NORM_MACS


class IARed(RaggedRule):
    """After chosen blocks an interpreter with several heads tells which patches inform; the others leave.

    Attributes:
        below: Patches that it finds less informative than this are dropped; 0 is the identity.
        penalty: What a wrong answer costs in its training, where a right one earns what it saves.
        blocks: The first block of each group; 4, 7 and 10 of twelve when left out.
    """

    reducer: Literal["iared"] = "iared"
    below: Annotated[float, Field(ge=0, le=1)] = 0.5
    penalty: Annotated[float, Field(ge=0)] = 0.5

    @classmethod
    def identity(cls) -> Self:
        """Nothing below zero."""
        return cls(below=0.0)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """At the quarters, and in every block."""
        return cls(below=0.7), cls(below=0.73, blocks=(1, 2, 3, 4))

    @property
    def needs_class_token(self) -> bool:
        """Yes: patches are compared with it."""
        return True

    @property
    def learns(self) -> bool:
        """Yes."""
        return True

    def learned_part(self, architecture: Architecture, width: int) -> LearnedPart:
        """That of one interpreter: LayerNorm, two maps from D to H K', a product of H K' a patch, a shift."""
        inner = interpreter_width(width, architecture.heads)
        return LearnedPart(
            weights=2 * width * inner,
            others=2 * width + 2 * inner + 1,
            products=width * inner + inner,
            norms=LAYER_NORM_MACS * width,
            products_once=width * inner,
            norms_once=LAYER_NORM_MACS * width,
        )

    def resolved(self, architecture: Architecture) -> Self | NoReduction:
        """The blocks written out; no reduction where nothing is low enough."""
        if not architecture.class_token:
            raise ValueError("iared needs a CLS token to compare with; set class_token=true or choose threshold")
        self.check_blocks(architecture)
        if not self.below:
            return NoReduction()
        return self.model_copy(update={"blocks": self.active_blocks(architecture.depth)})


def interpreter_width(width: int, heads: int) -> int:
    """Width of all heads of an interpreter together."""
    return heads * max(1, width // heads)
