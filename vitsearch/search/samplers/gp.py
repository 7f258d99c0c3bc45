"""Gaussian processes, one for each objective and constraint."""

from __future__ import annotations

from optuna.samplers import BaseSampler, GPSampler


def build_gp(seed: int, population: int) -> BaseSampler:  # noqa: ARG001
    """See ``SamplerFactory``."""
    return GPSampler(seed=seed)
