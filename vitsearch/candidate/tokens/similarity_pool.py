"""Pooling of similar tokens: settings and arithmetic. Luhtalampi, *Scaling Vision Transformers*, Section 4.2.3."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from vitsearch.candidate.tokens.ragged import RaggedScoredRule

Cosine = Annotated[float, Field(ge=-1, le=1)]


class SimilarityPool(RaggedScoredRule):
    """Group patches whose cosine exceeds a threshold; one token goes on for each group.

    Attributes:
        cosine: The threshold, or one for each chosen block; 1 groups nothing.
        pool: What goes on: the ``avg`` of the group, weighted by size, or its ``first`` patch, the one of the
            largest score, as it is.
    """

    per_block_fields: ClassVar[tuple[str, ...]] = ("cosine",)
    averages: ClassVar[bool] = False
    figure: ClassVar[str] = "cosine"
    off: ClassVar[float] = 1.0

    reducer: Literal["similarity_pool"] = "similarity_pool"
    cosine: Cosine | tuple[Cosine, ...] = 0.9
    pool: Literal["avg", "first"] = "avg"

    @classmethod
    def identity(cls) -> Self:
        """A cosine that no two patches exceed."""
        return cls(cosine=1.0)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Averages and representatives, one group for all, a threshold for each block, and without a CLS token."""
        return (
            cls(cosine=0.3),
            cls(cosine=0.2, pool="first", score="ats"),
            cls(cosine=-1.0, blocks=(4,)),
            cls(cosine=(0.4, 1.0, 0.1), blocks=(1, 2, 3), score="magnitude"),
        )

    @property
    def drops(self) -> bool:
        """No: sizes of a group add up, whichever token goes on."""
        return False

    @property
    def compares_patches(self) -> bool:
        """Yes."""
        return True
