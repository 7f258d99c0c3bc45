"""NSGA-II (Deb et al., 2002): generations that survive by rank and crowding distance."""

from __future__ import annotations

from optuna.samplers import BaseSampler, NSGAIISampler


def build_nsga2(seed: int, population: int) -> BaseSampler:
    """See ``SamplerFactory``."""
    return NSGAIISampler(population_size=population, seed=seed)
