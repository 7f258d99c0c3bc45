"""Seeding, so that a run is a function of its arguments."""

from __future__ import annotations

import numpy as np
import torch


def seed_everything(*path: int) -> None:
    """Seed torch's global generator and numpy's, from which timm's Mixup draws.

    Args:
        path: What the draws are for, such as (seed, epoch, step); every path has a stream of its own.
    """
    mixed = int(np.random.SeedSequence(path).generate_state(1)[0])
    torch.manual_seed(mixed)
    np.random.seed(mixed)  # noqa: NPY002 - timm reads numpy's global generator
