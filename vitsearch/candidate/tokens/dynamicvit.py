"""DynamicViT: settings and arithmetic. Rao et al., *DynamicViT*, NeurIPS 2021."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.tokens.blocks import KeepRule
from vitsearch.candidate.tokens.rule import LearnedPart
from vitsearch.candidate.tokens.score import LAYER_NORM_MACS


class DynamicViT(KeepRule):
    """Before each chosen block a learned predictor chooses the patches that go on.

    Attributes:
        keep: Share of the patches kept before each chosen block, of those that reach it.
        blocks: Chosen blocks; 4, 7 and 10 of twelve when left out.
    """

    tracks_sizes: ClassVar[bool] = False

    reducer: Literal["dynamicvit"] = "dynamicvit"

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """At the quarters, in every block, by a schedule, and a share for each."""
        return (
            cls(keep=0.7),
            cls(keep=0.5, blocks=(1, 2, 3, 4)),
            cls(keep=0.6, schedule="increasing"),
            cls(keep=(0.9, 0.4), blocks=(2, 4)),
        )

    @property
    def runs_blocks(self) -> bool:
        """Yes."""
        return True

    @property
    def learns(self) -> bool:
        """Yes."""
        return True

    def learned_part(self, architecture: Architecture, width: int) -> LearnedPart:  # noqa: ARG002
        """That of one predictor: LayerNorm, D to 2 h, 2 h to h, h to q, q to 2."""
        h, q = predictor_widths(width)
        layers = ((width, 2 * h), (2 * h, h), (h, q), (q, 2))
        weights = sum(a * b for a, b in layers)
        return LearnedPart(
            weights=weights,
            others=2 * width + sum(b for _, b in layers),
            products=weights,
            norms=LAYER_NORM_MACS * width,
        )

    def tokens_judged(self, architecture: Architecture, block: int, entering: Sequence[int]) -> int:
        """Those that the block before saw: patches leave before the block."""
        return entering[block - 2] if block > 1 else architecture.num_tokens

    def kept_per_block(self, architecture: Architecture) -> dict[int, tuple[int, int]]:
        """Patches that reach the predictor of each chosen block, and how many of them it keeps."""
        now, found = architecture.num_patches, {}
        for block in self.active_blocks(architecture.depth):
            kept = self.num_kept(now + architecture.num_prefix_tokens, architecture, block)
            found[block] = (now, kept)
            now = kept
        return found

    def token_counts(self, architecture: Architecture) -> list[int]:
        """Tokens that block 1, 2, ..., depth compute, and that leave the last."""
        kept, counts, now = self.kept_per_block(architecture), [], architecture.num_tokens
        for block in range(1, architecture.depth + 1):
            if block in kept:
                now = architecture.num_prefix_tokens + kept[block][1]
            counts.append(now)
        return [*counts, now]

    def tokens_per_block(self, architecture: Architecture) -> list[tuple[int, int]]:
        """As many in the MLP as in the attention."""
        return [(n, n) for n in self.token_counts(architecture)[:-1]]


def predictor_widths(width: int) -> tuple[int, int]:
    """Width of the local and of the global features, h, and of the last hidden layer, q."""
    return max(1, width // 2), max(1, width // 4)
