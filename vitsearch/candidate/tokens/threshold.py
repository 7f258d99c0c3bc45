"""Threshold selection: settings and arithmetic."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from vitsearch.candidate.tokens.ragged import RaggedScoredRule, Threshold


class ThresholdSelection(RaggedScoredRule):
    """Keep the patches whose score exceeds tau, and the best one in any case.

    Attributes:
        tau: The threshold, or one for each chosen block; 0 keeps every patch there. Attention scores have a mean
            of about one over the number of tokens.
        rest: The others ``drop``, or ``merge`` each into the most cosine-similar patch that is kept.
    """

    per_block_fields: ClassVar[tuple[str, ...]] = ("tau",)
    figure: ClassVar[str] = "tau"
    off: ClassVar[float] = 0.0

    reducer: Literal["threshold"] = "threshold"
    tau: Threshold | tuple[Threshold, ...]
    rest: Literal["drop", "merge"] = "drop"

    @classmethod
    def identity(cls) -> Self:
        """A threshold of zero."""
        return cls(tau=0.0)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Dropped and merged, one for each block, one that keeps a single patch, and without a CLS token."""
        return (
            cls(tau=0.04),
            cls(tau=0.04, rest="merge", score="ats"),
            cls(tau=(0.039, 0.0, 0.05), blocks=(1, 2, 4), score="entropy"),
            cls(tau=2.0, blocks=(3,)),
            cls(tau=1.0, rest="merge", score="attention_received", blocks=(2, 3)),
        )

    @property
    def drops(self) -> bool:
        """Where it does not merge."""
        return self.rest == "drop"

    @property
    def compares_patches(self) -> bool:
        """Where it merges."""
        return self.rest == "merge"
