"""Adaptive token sampling: settings and arithmetic. Fayyaz et al., *Adaptive Token Sampling*, ECCV 2022."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from vitsearch.candidate.tokens.blocks import Count
from vitsearch.candidate.tokens.ragged import RaggedScoredRule
from vitsearch.candidate.tokens.score import ScoreName


class ATS(RaggedScoredRule):
    """Sample patches by the distribution of their scores; those that are sampled stay.

    Attributes:
        samples: Points at which the distribution is sampled in each chosen block, or one figure for each: the most
            patches that stay there; 0 samples nothing and keeps every patch.
        blocks: Chosen blocks; from the fourth of twelve on when left out.
    """

    per_block_fields: ClassVar[tuple[str, ...]] = ("samples",)
    figure: ClassVar[str] = "samples"
    off: ClassVar[float] = 0

    reducer: Literal["ats"] = "ats"
    samples: Count | tuple[Count, ...]
    score: ScoreName = "ats"

    @classmethod
    def identity(cls) -> Self:
        """No samples."""
        return cls(samples=0)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Fewer samples than patches, more, a number for each block, one sample, and without a CLS token."""
        return (
            cls(samples=12),
            cls(samples=60, blocks=(1, 2, 3, 4)),
            cls(samples=(20, 0, 9), blocks=(1, 3, 4), score="cls_attention"),
            cls(samples=1, blocks=(4,)),
            cls(samples=15, blocks=(1, 3), score="entropy"),
        )

    @classmethod
    def default_blocks(cls, depth: int) -> tuple[int, ...]:
        """Block 4 of twelve and all that follow."""
        return tuple(range(depth // 4 + 1, depth + 1))
