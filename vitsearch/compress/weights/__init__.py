"""Structured pruning: one file per ranking, one line in ``PRUNERS``."""

from collections.abc import Callable

from vitsearch.candidate import Candidate
from vitsearch.compress.weights.magnitude import prune_magnitude
from vitsearch.models import VisionTransformer

PRUNERS: dict[str, Callable[[VisionTransformer, Candidate], VisionTransformer]] = {"magnitude": prune_magnitude}

__all__ = ["PRUNERS", "prune_magnitude"]
