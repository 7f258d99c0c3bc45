"""Samplers: one file each, by their names in ``vitsearch.config.tables``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

import optuna
from optuna.distributions import BaseDistribution

from vitsearch.config import SAMPLERS as TABLE
from vitsearch.config import JobSpec
from vitsearch.config.named import Imported
from vitsearch.search.samplers.known_space import KnownSpace
from vitsearch.search.samplers.views import Generations, Latest, View


class SamplerFactory(Protocol):
    """Makes a sampler for one study.

    The sampler may be rebuilt from the stored trials after any ask: it must keep nothing that Optuna does not
    store with a trial.
    """

    def __call__(self, seed: int, population: int) -> optuna.samplers.BaseSampler:
        """The sampler.

        Args:
            seed: Of all its draws.
            population: Size of a generation, for samplers that have one.
        """
        ...


SAMPLERS: Mapping[str, SamplerFactory] = Imported(TABLE, lambda kind: kind.build)


def build_sampler(
    job: JobSpec,
    *,
    seed: int,
    distributions: Mapping[str, BaseDistribution],
    front: Callable[[], Collection[int]],
) -> KnownSpace:
    """The job's sampler.

    Args:
        job: Names the sampler and the population.
        distributions: Every axis.
        front: Numbers of the trials on the front, for samplers that do not look at all.
        seed: Derived from the study's seed and the asks so far: a sampler rebuilt with the old seed would repeat
            its draws.
    """
    population = job.search.population or max(min(50, max(8, job.search.trials // 4)), job.search.trials // 50)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        inner = SAMPLERS[job.search.sampler](seed, population)
    return KnownSpace(inner, distributions, _view_of(inner, TABLE[job.search.sampler].view, front))


def _view_of(
    sampler: optuna.samplers.BaseSampler, latest: int | None, front: Callable[[], Collection[int]]
) -> View | None:
    if isinstance(sampler, optuna.samplers.BaseGASampler):
        return Generations(sampler)
    return None if latest is None else Latest(latest, front)


__all__ = ["SAMPLERS", "SamplerFactory", "build_sampler"]
