"""Samplers by name: one line each in ``SAMPLERS``."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import optuna

from vitsearch.config import JobSpec

Factory = Callable[[int, int], optuna.samplers.BaseSampler]


def _nsga2(seed: int, population: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.NSGAIISampler(population_size=population, seed=seed)


def _nsga3(seed: int, population: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.NSGAIIISampler(population_size=population, seed=seed)


def _tpe(seed: int, population: int) -> optuna.samplers.BaseSampler:  # noqa: ARG001
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)


def _gp(seed: int, population: int) -> optuna.samplers.BaseSampler:  # noqa: ARG001
    return optuna.samplers.GPSampler(seed=seed)


def _random(seed: int, population: int) -> optuna.samplers.BaseSampler:  # noqa: ARG001
    return optuna.samplers.RandomSampler(seed=seed)


SAMPLERS: dict[str, Factory] = {"random": _random, "nsga2": _nsga2, "nsga3": _nsga3, "tpe": _tpe, "gp": _gp}


def build_sampler(job: JobSpec, *, seed: int) -> Any:
    """The job's sampler.

    Args:
        job: Names the sampler and the population.
        seed: Derived from the study's seed and the asks so far: a sampler rebuilt with the old seed would repeat
            its draws.
    """
    population = job.search.population or min(50, max(8, job.search.trials // 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return SAMPLERS[job.search.sampler](seed, population)


__all__ = ["SAMPLERS", "build_sampler"]
