"""SPViT's package token: settings and arithmetic. Kong et al., *SPViT*, ECCV 2022."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.tokens.blocks import KeepRule
from vitsearch.candidate.tokens.rule import NoReduction
from vitsearch.candidate.tokens.score import ScoredRule
from vitsearch.candidate.widths import BlockWidths


class SPViT(KeepRule, ScoredRule):
    """Keep the patches of the highest score; the others average into one package token.

    The paper's selector is learned and decides image by image; here a score of the table ranks, and the share is
    given. The package token counts among the patches of later blocks.
    """

    tracks_sizes: ClassVar[bool] = False

    reducer: Literal["spvit"] = "spvit"

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """The ordinary one, few patches in every block, and without a CLS token."""
        return (
            cls(keep=0.7),
            cls(keep=0.2, blocks=(1, 2, 3, 4)),
            cls(keep=0.6, schedule="increasing", score="attention_received"),
        )

    @property
    def num_summaries(self) -> int:
        """The package token."""
        return 1

    def resolved(self, architecture: Architecture) -> Self | NoReduction:
        """As ``KeepRule`` says."""
        self.check_score(architecture)
        return super().resolved(architecture)

    def extra_macs(self, num_tokens: int, architecture: Architecture, block: int, widths: BlockWidths) -> int:
        """The score."""
        removes = self.num_kept(num_tokens, architecture, block) < num_tokens - architecture.num_prefix_tokens
        return self.score_macs(num_tokens, widths) if removes else 0
