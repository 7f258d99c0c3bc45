"""A-ViT: settings and arithmetic. Yin et al., *A-ViT: Adaptive Tokens for Efficient ViT*, CVPR 2022."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.tokens.blocks import every_block
from vitsearch.candidate.tokens.rule import CostKind, NoReduction, TokenRule


class AViT(TokenRule):
    """Patches stop after the block in which their summed halting scores pass 1 - eps.

    Attributes:
        gamma: Scale of the channel that is the halting neuron; 0 switches halting off.
        beta: What its scaled value is lowered by.
        eps: How far from 1 the summed scores may stop.
        ponder: Weight of the ponder loss in training.
    """

    tracks_sizes: ClassVar[bool] = True

    reducer: Literal["avit"] = "avit"
    gamma: Annotated[float, Field(ge=0)] = 10.0
    beta: float = 30.0
    eps: Annotated[float, Field(gt=0, lt=1)] = 0.01
    ponder: Annotated[float, Field(ge=0)] = 5e-4

    @classmethod
    def identity(cls) -> Self:
        """No halting."""
        return cls(gamma=0.0)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Halting early and late in networks without training."""
        return cls(gamma=2.0, beta=1.0), cls(gamma=1.0, beta=0.0, eps=0.3)

    @property
    def runs_blocks(self) -> bool:
        """Yes."""
        return True

    @property
    def needs_class_token(self) -> bool:
        """Yes: what the head reads is the halting-weighted sum of the CLS token over blocks."""
        return True

    @property
    def cost_kind(self) -> CostKind:
        """The image decides when its patches stop."""
        return "bounded"

    @property
    def learns(self) -> bool:
        """Its neuron is a channel that is there already, but it has to learn when to stop."""
        return True

    def resolved(self, architecture: Architecture) -> Self | NoReduction:
        """Itself; no reduction without halting or with a single block.

        Raises:
            ValueError: The head reads no prefix token.
        """
        if architecture.pool != "token" or not architecture.class_token:
            raise ValueError(
                f"avit needs a CLS token that the head reads, but got "
                f"class_token={str(architecture.class_token).lower()}, pool={architecture.pool}; "
                f"set class_token=true, pool=token"
            )
        return self if self.gamma and architecture.depth > 1 else NoReduction()

    def active_blocks(self, depth: int) -> tuple[int, ...]:
        """All."""
        return every_block(depth)

    def tokens_after(self, num_tokens: int, architecture: Architecture, block: int) -> int:
        """The fewest: prefix tokens. What the last block computes is what leaves it."""
        return num_tokens if block == architecture.depth else architecture.num_prefix_tokens

    def tokens_per_block(self, architecture: Architecture) -> list[tuple[int, int]]:
        """As many in the MLP as in the attention."""
        return [(n, n) for n in self.token_counts(architecture)[:-1]]

    def budget_counts(self, architecture: Architecture) -> list[int]:
        """Every token, as under other rules that depend on the image."""
        return [architecture.num_tokens] * (architecture.depth + 1)
