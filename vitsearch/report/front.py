"""The front of a study, its knee and its hypervolume, from stored trials."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vitsearch.config import METRICS, JobSpec, Metric, Value
from vitsearch.cost import cost_of
from vitsearch.errors import StudyError
from vitsearch.pareto import hypervolume, knee, non_dominated
from vitsearch.report.figures import constraints_known, directions, known_figures, objective_values, violations
from vitsearch.space import SPARSITY_RATIOS, Dimension, SearchSpace, resolve_preset
from vitsearch.storage import DataSummary, KnownTrials, StudyRecord, StudyStore, TrialRecord

CHANCE_ERRORS = 3
TOKENS_REMOVED = ("tokens.r", "tokens.prune", "tokens.merge", "tokens.grid")


@dataclass(frozen=True, kw_only=True)
class StudyReport:
    """Everything a display, a file or MLflow needs to know about a study.

    Attributes:
        study: The study's row.
        data: Its data set.
        trials: All trials, by number.
        front: Non-dominated feasible trials, best first objective first.
        knee: The front member nearest to the ideal point; None while the front is empty.
        hypervolume: Volume the front dominates up to ``reference``.
        reference: Where the hypervolume ends, one figure for each objective.
    """

    study: StudyRecord
    data: DataSummary
    trials: list[TrialRecord]
    front: list[TrialRecord]
    knee: TrialRecord | None
    hypervolume: float
    reference: list[float]

    @property
    def job(self) -> JobSpec:
        """The job as it runs."""
        return self.study.job

    @classmethod
    def load(cls, store: StudyStore, known: KnownTrials | None = None) -> StudyReport:
        """Read a study.

        Args:
            store: The study.
            known: Its trials as read before; brought up to date.

        Raises:
            StudyError: The study ended before it had read its data.
        """
        study = store.study()
        if study.data is None:
            raise StudyError(f"study {study.name!r} ended before it had read its data; resume or run it again")
        job, data, trials = study.job, study.data, store.trials(known)
        front = front_of(trials, job)
        reference = reference_of(job, space_of(job, data), data, trials)
        return cls(
            study=study, data=data, trials=trials, front=front, knee=knee_of(front, job, data),
            hypervolume=hypervolume_of(front, job, reference), reference=reference,
        )  # fmt: skip


def space_of(job: JobSpec, data: DataSummary, *, checked: bool = False) -> SearchSpace:
    """The job's search space for its data; that of a stored study is not checked again."""
    spec, num_classes = resolve_preset(job.space), len(data.class_names)
    return SearchSpace(spec, in_chans=data.in_chans, num_classes=num_classes, checked=checked)


def point_of(trial: TrialRecord, job: JobSpec) -> list[float]:
    """A trial's objectives; it must have all of them."""
    values = objective_values(trial.figures, job)
    assert values is not None, f"trial {trial.number} has no figures"
    return values


def is_candidate_for_front(trial: TrialRecord, job: JobSpec) -> bool:
    """Whether a trial succeeded, has every objective and constrained figure, and breaks no constraint."""
    if not trial.succeeded or objective_values(trial.figures, job) is None:
        return False
    return constraints_known(trial.figures, job.constraints) and not violations(trial.figures, job.constraints)


def front_of(trials: Iterable[TrialRecord], job: JobSpec) -> list[TrialRecord]:
    """The non-dominated feasible trials, best first objective first."""
    rivals = [trial for trial in trials if is_candidate_for_front(trial, job)]
    best = [rivals[i] for i in non_dominated([point_of(t, job) for t in rivals], directions(job))]
    by_number = sorted(best, key=lambda t: t.number)
    return sorted(by_number, key=lambda t: point_of(t, job)[0], reverse=directions(job)[0])  # ties stay in order


def knee_of(front: Sequence[TrialRecord], job: JobSpec, data: DataSummary) -> TrialRecord | None:
    """The front member nearest to the ideal point, of those that have learned anything if there are such."""
    members = [trial for trial in front if beats_chance(trial, data)] or front
    return members[knee([point_of(t, job) for t in members], directions(job))] if members else None


def beats_chance(trial: TrialRecord, data: DataSummary) -> bool:
    """Whether the validation accuracy lies three standard errors above always naming the largest class.

    A model that has learned nothing costs next to nothing, so it may well be non-dominated; nobody wants it.
    """
    chance = data.chance_accuracy
    error = math.sqrt(chance * (1 - chance) / max(1, data.num_val))
    return trial.figures.get("accuracy", 1.0) > chance + CHANCE_ERRORS * error


def hypervolume_of(front: Sequence[TrialRecord], job: JobSpec, reference: Sequence[float]) -> float:
    """Volume the front dominates up to ``reference``."""
    return hypervolume([point_of(t, job) for t in front], directions(job), reference)


def reference_of(
    job: JobSpec, space: SearchSpace, data: DataSummary, trials: Iterable[TrialRecord]
) -> list[float]:
    """Where the hypervolume of these trials ends, one figure for each objective."""
    reference = Reference(job, space, data)
    for trial in trials:
        reference.note(trial)
    return reference.point()


class Reference:
    """Where the hypervolume ends: chance accuracy, the space's costliest corner, the worst measurement.

    Kept up trial by trial: a search asks whenever one ends, which must not take longer the more there are.

    Args:
        job: The job.
        space: Its search space.
        data: Its data set.
    """

    def __init__(self, job: JobSpec, space: SearchSpace, data: DataSummary) -> None:
        self._metrics = [METRICS[name] for name in job.objectives]
        self._corner = {"accuracy": data.chance_accuracy, **costliest_figures(space, job)}
        self._seen: dict[str, dict[int, float]] = {metric.key: {} for metric in self._metrics}
        self._worst: dict[str, float] = {}

    def note(self, trial: TrialRecord) -> None:
        """Take in a trial's figures, in place of those it had before."""
        for metric in self._metrics:
            # a cost that was known only within bounds may turn out to lie beyond the corner
            is_sure = metric.key == "accuracy" or (metric.key in self._corner and trial.cost.kind == "exact")
            if metric.key in trial.figures and not is_sure:
                self._note(metric, trial.number, trial.figures[metric.key])

    def _note(self, metric: Metric, number: int, value: float) -> None:
        worse, seen = min if metric.maximize else max, self._seen[metric.key]
        before, worst = seen.get(number), self._worst.get(metric.key, value)
        seen[number] = value
        was_the_worst = before == worst and before != value  # measured again
        self._worst[metric.key] = worse(seen.values()) if was_the_worst else worse(value, worst)

    def point(self) -> list[float]:
        """One figure for each objective."""
        return [self._bound(metric) for metric in self._metrics]

    def _bound(self, metric: Metric) -> float:
        corner = self._corner.get(metric.key)
        if corner is not None:
            return max(corner, self._worst.get(metric.key, corner))
        return self._worst.get(metric.key, 0.0) * (0.9 if metric.maximize else 1.1)


def costliest_figures(space: SearchSpace, job: JobSpec) -> dict[str, float]:
    """Known figures of the space's costliest corner."""
    draw = {axis.name: _largest(axis) for axis in space.dimensions}
    return known_figures(cost_of(space.decode(draw)), job)


def _largest(axis: Dimension) -> Value:
    """The costliest value of an axis, as far as its name tells."""
    values = axis.values()
    if axis.name == "tokens.reducer":
        return "none" if "none" in values else values[0]
    if axis.field in {"architecture.patch_size", *SPARSITY_RATIOS, *TOKENS_REMOVED}:
        return min(values, key=float)
    numeric = [v for v in values if isinstance(v, int | float)]
    return max(numeric) if numeric else values[0]
