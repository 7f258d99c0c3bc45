"""Token Pooling: settings and arithmetic. Marin et al., *Token Pooling in Vision Transformers*, 2021."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.tokens.blocks import CountRule
from vitsearch.candidate.tokens.rule import NoReduction
from vitsearch.candidate.tokens.score import ScoredRule, ScoreName
from vitsearch.candidate.widths import BlockWidths


class TokenPooling(CountRule, ScoredRule):
    """Cluster the patches to k and go on with the clusters' centres.

    Attributes:
        method: ``kmeans``: centres are weighted means; ``kmedoids``: they are patches.
        iterations: Rounds of assigning and moving the centres.
        score: Weight of a patch, and what chooses the first centres.
    """

    tracks_sizes: ClassVar[bool] = False

    reducer: Literal["token_pooling"] = "token_pooling"
    method: Literal["kmeans", "kmedoids"] = "kmeans"
    iterations: Annotated[int, Field(ge=1, le=100)] = 5
    score: ScoreName = "attention_received"

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Both methods, by number and by share."""
        return (
            cls(k=9),
            cls(k=7, method="kmedoids", iterations=3),
            cls(keep=(0.6, 0.3), blocks=(1, 4), iterations=1, score="magnitude"),
            cls(keep=0.5, schedule="decreasing", method="kmedoids", score="ats"),
        )

    def resolved(self, architecture: Architecture) -> Self | NoReduction:
        """As ``CountRule`` says."""
        self.check_score(architecture)
        return super().resolved(architecture)

    def extra_macs(self, num_tokens: int, architecture: Architecture, block: int, widths: BlockWidths) -> int:
        """The score, and the clustering of P patches to K in T rounds.

        K-means: distances of patches and centres in each round, T P K D. K-medoids: distances of all pairs once,
        P^2 D, and their weighted sums over each cluster in each round, T P^2 K.
        """
        patches = num_tokens - architecture.num_prefix_tokens
        kept = self.num_kept(num_tokens, architecture, block)
        if kept == patches:
            return 0
        if self.method == "kmeans":
            clustering = self.iterations * patches * kept * widths.width
        else:
            clustering = patches**2 * widths.width + self.iterations * patches**2 * kept
        return self.score_macs(num_tokens, widths) + clustering
