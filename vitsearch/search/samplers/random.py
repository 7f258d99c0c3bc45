"""Uniform draws, whatever came before."""

from __future__ import annotations

from optuna.samplers import BaseSampler, RandomSampler


def build_random(seed: int, population: int) -> BaseSampler:  # noqa: ARG001
    """See ``SamplerFactory``."""
    return RandomSampler(seed=seed)
