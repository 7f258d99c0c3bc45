"""The table of token scores, torch-free: what each reads of the attention matrix, and what that costs.

With A the attention matrix of a head, h over heads and v_i the values of token i, heads concatenated:

| name | score of patch i |
|---|---|
| ``cls_attention`` | mean_h A[cls, i] (Liang et al., *EViT*, ICLR 2022) |
| ``attention_to_cls`` | mean_h A[i, cls] |
| ``attention_received`` | sum over h and all queries j of A[j, i] (Marin et al., *Token Pooling*, 2021) |
| ``ats`` | sum_h A[cls, i] * norm(v_i), normalised over patches (Fayyaz et al., *ATS*, ECCV 2022, Eq. 3) |
| ``entropy`` | mean_h entropy(A[i, :]) * norm(v_i), normalised over patches |
| ``magnitude`` | norm(x_i), the Euclidean norm of the feature |
| ``learned`` | sigmoid of a small MLP of x_i, one for each block, trained in the fine-tuning epochs |

The kernels of the same names are in ``vitsearch.compress.tokens.scores``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.tokens.rule import LearnedPart, TokenRule
from vitsearch.candidate.widths import BlockWidths
from vitsearch.config.named import KeyOf


@dataclass(frozen=True)
class ScoreKind:
    """What a score needs.

    Attributes:
        reads: The part of the attention matrix it reads: ``nothing``, the CLS ``row``, or the whole ``matrix``.
        needs_class_token: Whether it is a relation to the CLS token.
        learns: Whether a network of its own computes it.
    """

    reads: Literal["nothing", "row", "matrix"]
    needs_class_token: bool
    learns: bool = False

    def macs(self, num_tokens: int, widths: BlockWidths) -> int:
        """N * qk_width for a row of Q K^T over all heads, N^2 * qk_width for all of it.

        Where heads are mixed before the softmax, each of these N or N^2 logits costs H more for each head.
        """
        rows = {"nothing": 0, "row": 1, "matrix": num_tokens}[self.reads]
        mixing = widths.heads**2 if widths.mixes_heads else 0
        return rows * num_tokens * (widths.qk_width + mixing)


SCORES: dict[str, ScoreKind] = {
    "cls_attention": ScoreKind("row", needs_class_token=True),
    "attention_to_cls": ScoreKind("matrix", needs_class_token=True),
    "attention_received": ScoreKind("matrix", needs_class_token=False),
    "ats": ScoreKind("row", needs_class_token=True),
    "entropy": ScoreKind("matrix", needs_class_token=False),
    "magnitude": ScoreKind("nothing", needs_class_token=False),
    "learned": ScoreKind("nothing", needs_class_token=False, learns=True),
}

LAYER_NORM_MACS = 5  # per element


def score_hidden(width: int) -> int:
    """Hidden units of the network behind the learned score."""
    return max(1, width // 4)


ScoreName = Annotated[str, KeyOf(SCORES)]


class ScoredRule(TokenRule):
    """A rule that ranks or weighs patches by a score.

    Attributes:
        score: Its name in ``SCORES``.
    """

    score: ScoreName = "cls_attention"

    @property
    def uses_score(self) -> bool:
        """Whether the score matters under the other settings."""
        return True

    @property
    def needs_class_token(self) -> bool:
        """Whether the score is a relation to the CLS token."""
        return self.uses_score and SCORES[self.score].needs_class_token

    @property
    def score_learns(self) -> bool:
        """Whether a network of its own computes the score."""
        return self.uses_score and SCORES[self.score].learns

    @property
    def learns(self) -> bool:
        """Where its score does."""
        return self.score_learns

    def learned_part(self, architecture: Architecture, width: int) -> LearnedPart:  # noqa: ARG002
        """That of the score network: LayerNorm, D to D/4, GELU, D/4 to 1."""
        if not self.score_learns:
            return LearnedPart()
        hidden = score_hidden(width)
        weights = width * hidden + hidden
        return LearnedPart(
            weights=weights, others=2 * width + hidden + 1, products=weights, norms=LAYER_NORM_MACS * width
        )

    def check_score(self, architecture: Architecture) -> None:
        """Refuse a score that the network cannot give.

        Raises:
            ValueError: The score reads the CLS token and there is none.
        """
        if self.needs_class_token and not architecture.class_token:
            others = [name for name, kind in SCORES.items() if not kind.needs_class_token]
            raise ValueError(
                f"{self.reducer} needs a CLS token for its score, but got score={self.score}, class_token=false; "
                f"set class_token=true or choose score from {others}"
            )

    def score_macs(self, num_tokens: int, widths: BlockWidths) -> int:
        """MACs of the score on one image of ``num_tokens`` tokens."""
        return SCORES[self.score].macs(num_tokens, widths) if self.uses_score else 0
