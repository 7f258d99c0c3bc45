"""Optuna behind three verbs: ask, tell, rebuild. The study lives in memory; our tables are the truth."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from vitsearch.config import JobSpec, Value
from vitsearch.pareto import non_dominated
from vitsearch.report.figures import directions
from vitsearch.search.samplers import build_sampler
from vitsearch.space import Dimension, SearchSpace

FEASIBLE = -1.0


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One draw.

    Attributes:
        number: Position among the asks, from 0.
        draw: A value for every axis.
        sampler_state: The sampler's own notes on the trial, as JSON text; needed to rebuild.
    """

    number: int
    draw: dict[str, Value]
    sampler_state: str


@dataclass(frozen=True, kw_only=True)
class Past:
    """One earlier trial, for rebuilding.

    Attributes:
        asked: The draw.
        values: Objectives as told; None while the trial is still running.
        violation: Constraint excess as told; positive is infeasible.
    """

    asked: Asked
    values: Sequence[float] | None
    violation: float = FEASIBLE


class Asker:
    """The sampler's side of a study.

    Args:
        space: What to draw from.
        job: Objectives, sampler and seed.
        past: Every earlier trial, by number, when a study goes on.
    """

    def __init__(self, space: SearchSpace, job: JobSpec, past: Sequence[Past] = ()) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._distributions = {axis.name: distribution(axis) for axis in space.dimensions}
        seed = int(np.random.SeedSequence([job.seed, len(past)]).generate_state(1)[0])
        self._maximize = directions(job)
        self._front: dict[int, list[float]] = {}
        self.study = optuna.create_study(
            directions=["maximize" if up else "minimize" for up in self._maximize],
            sampler=build_sampler(job, seed=seed, distributions=self._distributions, front=lambda: self._front),
        )
        self._running: dict[int, Trial] = {}
        for one in past:
            if one.values is not None:
                self._consider(one.asked.number, one.values, one.violation)
            self.study.add_trial(self._frozen(one))
            if one.values is None:
                trial_id = self.study.get_trials(deepcopy=False)[-1]._trial_id  # noqa: SLF001 - the only way back
                self._running[one.asked.number] = Trial(self.study, trial_id)

    def ask(self) -> Asked:
        """Draw a candidate's settings."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            trial = self.study.ask(fixed_distributions=self._distributions)
        self._running[trial.number] = trial
        attributes = trial.storage.get_trial_system_attrs(trial._trial_id)  # noqa: SLF001 - no public way to them
        state = json.dumps({k: v for k, v in attributes.items() if _is_plain(v)})
        return Asked(number=trial.number, draw=dict(trial.params), sampler_state=state)

    def tell(self, number: int, values: Sequence[float], violation: float = FEASIBLE) -> None:
        """Report the outcome of an ask, once.

        Args:
            number: From ``ask``.
            values: The objectives in their natural directions.
            violation: Positive for an infeasible candidate, by how much.
        """
        trial = self._running.pop(number)
        trial.set_constraint("violation", violation)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.study.tell(trial, list(values))
        self._consider(number, values, violation)

    def _consider(self, number: int, values: Sequence[float], violation: float) -> None:
        """Let a trial onto the front if it belongs there."""
        if violation <= 0 and all(map(math.isfinite, values)):
            rivals = [*self._front.items(), (number, list(values))]
            self._front = dict(rivals[i] for i in non_dominated([point for _, point in rivals], self._maximize))

    def _frozen(self, one: Past) -> FrozenTrial:
        told = one.values is not None
        return create_trial(
            state=TrialState.COMPLETE if told else TrialState.RUNNING,
            values=list(one.values) if one.values is not None else None,
            params=one.asked.draw,
            distributions=self._distributions,
            system_attrs=json.loads(one.asked.sampler_state),
            constraints={"violation": one.violation} if told else None,
        )


def distribution(axis: Dimension) -> BaseDistribution:
    """An axis as an Optuna distribution."""
    if axis.kind == "categorical":
        return CategoricalDistribution(axis.choices)
    if axis.kind == "int":
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log, step=int(axis.step or 1))
    high = axis.high
    if axis.step is not None:  # Optuna wants the range to be a multiple of the step
        high = axis.low + axis.step * math.floor((axis.high - axis.low) / axis.step + 1e-9)
    return FloatDistribution(axis.low, high, log=axis.log, step=axis.step)


def _is_plain(value: object) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True
