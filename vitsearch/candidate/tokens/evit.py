"""EViT: settings and arithmetic. Liang et al., *Not All Patches are What You Need*, ICLR 2022."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.tokens.rule import Blocks, NoReduction, TokenRule, check_blocks, quarter_blocks
from vitsearch.candidate.widths import BlockWidths


class EViT(TokenRule):
    """Keep the patches the CLS token attends to; fuse the rest into one token.

    Attributes:
        keep: Share of the non-prefix tokens kept at each chosen block; 1 is the identity.
        fuse: Whether the others live on as one token (sum of a_i x_i) or are dropped.
        blocks: Chosen blocks, from 1; 4, 7 and 10 of twelve when left out.
    """

    needs_class_token: ClassVar[bool] = True
    tracks_sizes: ClassVar[bool] = False

    reducer: Literal["evit"] = "evit"
    keep: Annotated[float, Field(gt=0, le=1)] = 0.7
    fuse: bool = True
    blocks: Blocks | None = None

    @classmethod
    def identity(cls) -> Self:
        """Every patch."""
        return cls(keep=1.0)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """With and without fusing, and in every block."""
        return (
            cls(keep=0.7),
            cls(keep=0.5, fuse=False),
            cls(keep=0.1, blocks=(1, 2, 3, 4)),
        )

    def resolved(self, architecture: Architecture) -> Self | NoReduction:
        """Defaults written out; no reduction when every token stays."""
        if not architecture.class_token:
            raise ValueError("evit needs a CLS token to rank patches by; set class_token=true or choose tome")
        blocks = self.active_blocks(architecture.depth)
        check_blocks(blocks, architecture.depth, "evit")
        full = self.model_copy(update={"blocks": blocks})
        if all(
            self.num_kept(n, architecture) == n - architecture.num_prefix_tokens
            for n in full.token_counts(architecture)[:-1]
        ):
            return NoReduction()
        return full

    def active_blocks(self, depth: int) -> tuple[int, ...]:
        """The chosen blocks."""
        return self.blocks or quarter_blocks(depth)

    def num_kept(self, num_tokens: int, architecture: Architecture) -> int:
        """ceil(keep (N - prefix)); the small slack keeps 0.7 * 10 at 7."""
        return math.ceil(self.keep * (num_tokens - architecture.num_prefix_tokens) - 1e-9)

    def tokens_after(self, num_tokens: int, architecture: Architecture, block: int) -> int:  # noqa: ARG002
        """Prefix + kept + the fused token, if anything was left to fuse."""
        kept = self.num_kept(num_tokens, architecture)
        if kept >= num_tokens - architecture.num_prefix_tokens:
            return num_tokens
        return architecture.num_prefix_tokens + kept + int(self.fuse)

    def extra_macs(self, num_tokens: int, architecture: Architecture, block: int, widths: BlockWidths) -> int:  # noqa: ARG002
        """One row of attention, q_cls K^T: N * qk_width."""
        removes = self.num_kept(num_tokens, architecture) < num_tokens - architecture.num_prefix_tokens
        return cls_row_macs(num_tokens, widths) if removes else 0


def cls_row_macs(num_tokens: int, widths: BlockWidths) -> int:
    """MACs of the CLS row of the attention matrix over all heads."""
    return num_tokens * widths.qk_width
