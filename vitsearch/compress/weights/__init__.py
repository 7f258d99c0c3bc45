"""Structured pruning: one file per ranking, by the names in ``vitsearch.candidate.PRUNERS``."""

from collections.abc import Mapping
from typing import Protocol

from vitsearch.candidate import PRUNERS as TABLE
from vitsearch.candidate import Candidate
from vitsearch.config.named import Imported
from vitsearch.models import VisionTransformer


class Pruner(Protocol):
    """Makes the candidate's smaller network out of the trained dense one, which stays as it is."""

    def __call__(self, model: VisionTransformer, candidate: Candidate) -> VisionTransformer:
        """A network of the shape of ``build_pruned(candidate)``."""
        ...


PRUNERS: Mapping[str, Pruner] = Imported(TABLE)

__all__ = ["PRUNERS", "Pruner"]
