"""How ranges are chosen from calibration images: one file per idea, by the names in ``CALIBRATIONS``."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from vitsearch.candidate.precision import CALIBRATIONS as TABLE
from vitsearch.config.named import Imported
from vitsearch.models import VisionTransformer


class Calibration(Protocol):
    """Sets every range of a network with quantisers, and quantises its weights."""

    def __call__(self, model: VisionTransformer, batches: Sequence[Tensor]) -> None:
        """Calibrate in place.

        Args:
            model: In evaluation mode; its weights are not quantised yet.
            batches: Normalised images (B, C, H, W).
        """
        ...


CALIBRATIONS: Mapping[str, Calibration] = Imported(TABLE, path=lambda kind: kind.run)

__all__ = ["CALIBRATIONS", "Calibration"]
