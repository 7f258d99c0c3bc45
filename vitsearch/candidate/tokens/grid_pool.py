"""Pooling of square groups of patches: settings and arithmetic. Luhtalampi, master's thesis, Section 4.2.3."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.tokens.blocks import BlockwiseRule, quarter_blocks
from vitsearch.candidate.tokens.rule import NoReduction
from vitsearch.candidate.tokens.score import ScoredRule
from vitsearch.candidate.widths import BlockWidths


class GridPool(BlockwiseRule, ScoredRule):
    """Pool each group of grid x grid neighbours into one token; groups at the right and lower edge may be smaller.

    Attributes:
        grid: Side of a group in patches; 1 is the identity.
        pool: ``avg``, ``max`` of each channel, or ``attention``: an average weighted by the score.
        blocks: Chosen blocks, each of which pools what the one before left; the first quarter's when left out.
    """

    averages: ClassVar[bool] = False
    keeps_grid: ClassVar[bool] = True

    reducer: Literal["grid_pool"] = "grid_pool"
    grid: Annotated[int, Field(ge=1)] = 2
    pool: Literal["avg", "max", "attention"] = "avg"

    @classmethod
    def identity(cls) -> Self:
        """Groups of one."""
        return cls(grid=1)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Every way to pool, groups that do not fit, pooling twice, and everything into one."""
        return (
            cls(grid=2),
            cls(grid=3, pool="max"),
            cls(grid=2, pool="attention", blocks=(1, 3)),
            cls(grid=9, pool="attention", score="magnitude"),
        )

    @classmethod
    def default_blocks(cls, depth: int) -> tuple[int, ...]:
        """The fourth of twelve."""
        return quarter_blocks(depth)[:1]

    @property
    def drops(self) -> bool:
        """No: every patch belongs to a group."""
        return False

    @property
    def sees_positions(self) -> bool:
        """Yes: neighbours."""
        return True

    @property
    def uses_score(self) -> bool:
        """As a weight."""
        return self.pool == "attention"

    def tokens_after(self, num_tokens: int, architecture: Architecture, block: int) -> int:  # noqa: ARG002
        """Prefix + ceil(side / grid)^2."""
        prefix = architecture.num_prefix_tokens
        return prefix + (-(-side_of(num_tokens - prefix) // self.grid)) ** 2

    def resolved(self, architecture: Architecture) -> Self | NoReduction:
        """No group larger than the image, the score only where it counts, blocks with more than one patch."""
        self.check_score(architecture)
        self.check_blocks(architecture)
        counts = self.token_counts(architecture)
        blocks = tuple(b for b in self.active_blocks(architecture.depth) if counts[b] < counts[b - 1])
        if not blocks:
            return NoReduction()
        grid = min(self.grid, side_of(architecture.num_patches))
        score = self.score if self.uses_score else type(self).model_fields["score"].default
        return self.model_copy(update={"grid": grid, "score": score, "blocks": blocks})

    def extra_macs(self, num_tokens: int, architecture: Architecture, block: int, widths: BlockWidths) -> int:
        """The score, if it weighs."""
        removes = self.tokens_after(num_tokens, architecture, block) < num_tokens
        return self.score_macs(num_tokens, widths) if removes else 0


def side_of(num_patches: int) -> int:
    """Side of the square of patches."""
    side = math.isqrt(num_patches)
    assert side**2 == num_patches, num_patches
    return side
