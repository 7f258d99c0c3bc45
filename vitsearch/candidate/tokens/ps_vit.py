"""PS-ViT, patch slimming: settings and arithmetic. Tang et al., *Patch Slimming*, CVPR 2022."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.tokens.blocks import every_block
from vitsearch.candidate.tokens.ragged import RaggedRule
from vitsearch.candidate.tokens.rule import CostKind, NoReduction


class PSViT(RaggedRule):
    """Places of the image whose removal changes what is read further up by no more than epsilon are dropped.

    The places are chosen once, on calibration images, from the last block down, and are the same for all images.

    Attributes:
        epsilon: Largest change of the tokens that are kept one block further up, squared and relative; 0 is the
            identity.
        blocks: Chosen blocks; all when left out.
    """

    reducer: Literal["ps_vit"] = "ps_vit"
    epsilon: Annotated[float, Field(ge=0)] = 0.02

    @classmethod
    def identity(cls) -> Self:
        """No change at all."""
        return cls(epsilon=0.0)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """In every block, and in a few."""
        return cls(epsilon=0.05), cls(epsilon=0.2, blocks=(2, 4))

    @classmethod
    def default_blocks(cls, depth: int) -> tuple[int, ...]:
        """Every block."""
        return every_block(depth)

    @property
    def needs_class_token(self) -> bool:
        """Yes: what it reads is what counts at the top."""
        return True

    @property
    def sees_positions(self) -> bool:
        """Yes: they are what is chosen."""
        return True

    @property
    def cost_kind(self) -> CostKind:
        """The trained network decides, and then it is the same for all images."""
        return "measured"

    @property
    def is_fitted(self) -> bool:
        """Yes."""
        return True

    def resolved(self, architecture: Architecture) -> Self | NoReduction:
        """The blocks written out; no reduction where nothing may change.

        Raises:
            ValueError: The head does not read the CLS token.
        """
        if architecture.pool != "token" or not architecture.class_token:
            raise ValueError(
                f"ps_vit needs a CLS token that the head reads, but got "
                f"class_token={str(architecture.class_token).lower()}, pool={architecture.pool}; "
                f"set class_token=true, pool=token"
            )
        self.check_blocks(architecture)
        if not self.epsilon:
            return NoReduction()
        return self.model_copy(update={"blocks": self.active_blocks(architecture.depth)})
