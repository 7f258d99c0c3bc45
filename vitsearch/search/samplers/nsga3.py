"""NSGA-III (Deb and Jain, 2014): generations spread along reference directions, for many objectives."""

from __future__ import annotations

from optuna.samplers import BaseSampler, NSGAIIISampler


def build_nsga3(seed: int, population: int) -> BaseSampler:
    """See ``SamplerFactory``."""
    return NSGAIIISampler(population_size=population, seed=seed)
