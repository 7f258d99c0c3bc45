"""Structured pruning: one file per ranking, by the names in ``vitsearch.candidate.PRUNERS``."""

from collections.abc import Mapping

from vitsearch.candidate import PRUNERS as TABLE
from vitsearch.compress.weights.context import PruneContext, Ranked, Ranking, Trainer
from vitsearch.compress.weights.prune import prune
from vitsearch.compress.weights.units import BlockUnits, Units
from vitsearch.config.named import Imported

PRUNERS: Mapping[str, Ranking] = Imported(TABLE)

__all__ = ["PRUNERS", "BlockUnits", "PruneContext", "Ranked", "Ranking", "Trainer", "Units", "prune"]
