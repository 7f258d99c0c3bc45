"""EViT: settings and arithmetic. Liang et al., *Not All Patches are What You Need*, ICLR 2022."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.tokens.blocks import KeepRule
from vitsearch.candidate.tokens.rule import NoReduction
from vitsearch.candidate.tokens.score import ScoredRule
from vitsearch.candidate.widths import BlockWidths


class EViT(KeepRule, ScoredRule):
    """Keep the patches the CLS token attends to; fuse the rest into one token.

    Attributes:
        fuse: Whether the others live on as one token (sum of a_i x_i) or are dropped.
    """

    tracks_sizes: ClassVar[bool] = False

    reducer: Literal["evit"] = "evit"
    fuse: bool = True

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """With and without fusing, in every block, by a schedule, a share for each, and without a CLS token."""
        return (
            cls(keep=0.7),
            cls(keep=0.5, fuse=False),
            cls(keep=0.1, blocks=(1, 2, 3, 4)),
            cls(keep=0.6, schedule="decreasing"),
            cls(keep=(0.9, 0.4), blocks=(1, 4), score="magnitude"),
        )

    @property
    def num_summaries(self) -> int:
        """The fused token."""
        return int(self.fuse)

    def resolved(self, architecture: Architecture) -> Self | NoReduction:
        """As ``KeepRule`` says."""
        self.check_score(architecture)
        return super().resolved(architecture)

    def extra_macs(self, num_tokens: int, architecture: Architecture, block: int, widths: BlockWidths) -> int:
        """The score."""
        kept = self.num_kept(num_tokens, architecture, block)
        removes = kept < num_tokens - architecture.num_prefix_tokens
        return self.score_macs(num_tokens, widths) if removes else 0
