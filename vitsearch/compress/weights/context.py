"""What a ranking for structured pruning is given beside the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from vitsearch.compress.weights.units import Units
from vitsearch.models import VisionTransformer


@dataclass(frozen=True, kw_only=True)
class PruneContext:
    """The trial as a ranking sees it.

    Attributes:
        seed: Of whatever is drawn.
        batches: Normalised training images (B, C, H, W) and their class indices (B,), on the network's device.
    """

    seed: int = 0
    batches: Sequence[tuple[Tensor, Tensor]] = ()


class Ranking(Protocol):
    """Tells how much each unit of a trained network matters; the least are pruned."""

    def __call__(self, model: VisionTransformer, context: PruneContext) -> Units:
        """A score for every unit of ``model``, which stays as it is.

        Scores are compared among units of one kind; within one block, except for channels and blocks.
        """
        ...
