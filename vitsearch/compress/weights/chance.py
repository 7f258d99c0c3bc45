"""Random pruning, the baseline that every ranking must beat."""

from __future__ import annotations

import torch

from vitsearch.compress.weights.context import PruneContext, Ranked
from vitsearch.compress.weights.units import random_units
from vitsearch.models import VisionTransformer


def rank_random(model: VisionTransformer, context: PruneContext) -> Ranked:
    """score_u ~ U[0, 1), independent for all units; a function of the seed alone."""
    return Ranked(model, random_units(model, torch.Generator().manual_seed(context.seed)))
