"""Token pruning and squeezing: settings and arithmetic.

Wei et al., *Joint Token Pruning and Squeezing Towards More Aggressive Compression of Vision
Transformers*, CVPR 2023.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.tokens.blocks import KeepRule
from vitsearch.candidate.tokens.rule import NoReduction
from vitsearch.candidate.tokens.score import ScoredRule
from vitsearch.candidate.tokens.topk import nearest_macs
from vitsearch.candidate.widths import BlockWidths


class TPS(KeepRule, ScoredRule):
    """Keep the patches of the highest score; squeeze each other one into the most cosine-similar of them."""

    tracks_sizes: ClassVar[bool] = False

    reducer: Literal["tps"] = "tps"

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """The ordinary one, few patches in every block, and shares for each without a CLS token."""
        return (
            cls(keep=0.7),
            cls(keep=0.3, blocks=(1, 2, 3, 4)),
            cls(keep=(0.5, 0.6), blocks=(1, 3), score="magnitude"),
        )

    def resolved(self, architecture: Architecture) -> Self | NoReduction:
        """As ``KeepRule`` says."""
        self.check_score(architecture)
        return super().resolved(architecture)

    def extra_macs(self, num_tokens: int, architecture: Architecture, block: int, widths: BlockWidths) -> int:
        """The score, and the cosines of kept and squeezed patches."""
        kept = self.num_kept(num_tokens, architecture, block)
        others = num_tokens - architecture.num_prefix_tokens - kept
        return self.score_macs(num_tokens, widths) + nearest_macs(kept, others, widths) if others else 0
