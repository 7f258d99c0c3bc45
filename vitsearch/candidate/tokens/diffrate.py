"""DiffRate with given rates: settings and arithmetic. Chen et al., *DiffRate*, ICCV 2023."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.tokens.blocks import BlockwiseRule, Count, canonical, every_block
from vitsearch.candidate.tokens.rule import NoReduction
from vitsearch.candidate.tokens.score import ScoredRule
from vitsearch.candidate.tokens.topk import nearest_macs
from vitsearch.candidate.widths import BlockWidths


class DiffRate(BlockwiseRule, ScoredRule):
    """Sort patches by score; prune the tail and merge the next ones into those before them.

    The paper learns both rates of each block; here they are given, so that a search can choose them. One patch
    stays in any case.

    Attributes:
        prune: Patches dropped at each chosen block, or one figure for each.
        merge: Patches merged there, likewise.
    """

    averages: ClassVar[bool] = False
    per_block_fields: ClassVar[tuple[str, ...]] = ("prune", "merge")

    reducer: Literal["diffrate"] = "diffrate"
    prune: Count | tuple[Count, ...] = 0
    merge: Count | tuple[Count, ...] = 0

    @classmethod
    def identity(cls) -> Self:
        """Both rates zero."""
        return cls()

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Both at once, one of them, a rate for each block, and more than there is."""
        return (
            cls(prune=2, merge=3),
            cls(merge=4, score="entropy"),
            cls(prune=(5, 0), merge=(0, 30), blocks=(2, 3)),
            cls(prune=40, merge=1, blocks=(4,)),
        )

    @classmethod
    def default_blocks(cls, depth: int) -> tuple[int, ...]:
        """Every block."""
        return every_block(depth)

    @property
    def drops(self) -> bool:
        """Where it prunes."""
        return any(self.prune) if isinstance(self.prune, tuple) else self.prune > 0

    def rates(self, num_tokens: int, architecture: Architecture, block: int) -> tuple[int, int]:
        """Patches that ``block`` prunes and merges when ``num_tokens`` enter it; pruning comes first."""
        spare = max(0, num_tokens - architecture.num_prefix_tokens - 1)
        pruned = min(self.at(self.prune, block, architecture.depth), spare)
        return pruned, min(self.at(self.merge, block, architecture.depth), spare - pruned)

    def tokens_after(self, num_tokens: int, architecture: Architecture, block: int) -> int:
        """N - pruned - merged."""
        return num_tokens - sum(self.rates(num_tokens, architecture, block))

    def resolved(self, architecture: Architecture) -> Self | NoReduction:
        """What each block prunes and merges, in blocks that do; no reduction where none does."""
        self.check_score(architecture)
        self.check_blocks(architecture)
        counts = self.token_counts(architecture)
        rates = {
            block: self.rates(counts[block - 1], architecture, block)
            for block in self.active_blocks(architecture.depth)
        }
        figures = {
            name: {block: pair[i] for block, pair in rates.items()} for i, name in enumerate(("prune", "merge"))
        }
        return canonical(self, figures, {block for block, pair in rates.items() if sum(pair)})

    def extra_macs(self, num_tokens: int, architecture: Architecture, block: int, widths: BlockWidths) -> int:
        """The score, and the cosines of kept and merged patches."""
        pruned, merged = self.rates(num_tokens, architecture, block)
        if not pruned + merged:
            return 0
        kept = num_tokens - architecture.num_prefix_tokens - pruned - merged
        return self.score_macs(num_tokens, widths) + nearest_macs(kept, merged, widths)
