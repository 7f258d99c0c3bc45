"""The study in memory: its trials, its front, its counts. Every change is stored before it counts."""

from __future__ import annotations

from collections import Counter

from vitsearch.config import METRICS, JobSpec
from vitsearch.messages import Profile, TrialFailure, TrialResult
from vitsearch.report.figures import (
    all_figures,
    constraints_known,
    infeasible_values,
    known_figures,
    objective_values,
    violations,
)
from vitsearch.report.front import Reference, front_of, hypervolume_of, is_candidate_for_front, knee_of
from vitsearch.report.tables import fate
from vitsearch.space import SearchSpace
from vitsearch.storage import DataSummary, StudyStore, TrialRecord


class Study:
    """What is known about one search.

    Args:
        store: Where everything is persisted.
        job: The job as it runs.
        space: The search space.
        data: What is known about the images.
    """

    def __init__(self, store: StudyStore, job: JobSpec, space: SearchSpace, data: DataSummary) -> None:
        self.store, self.job, self.space, self.data = store, job, space, data
        self.trials: dict[int, TrialRecord] = {trial.number: trial for trial in store.trials()}
        self._needed = dict.fromkeys([*job.objectives, *(constraint.metric for constraint in job.constraints)])
        self._fates = {number: fate(trial, job) for number, trial in self.trials.items()}
        self._counts = Counter(self._fates.values())
        self._by_hash: dict[str, int] = {}
        for trial in self.trials.values():
            if trial.kind == "evaluate":
                self._by_hash.setdefault(trial.candidate.hash, trial.number)
        self._front = [trial.number for trial in front_of(self.trials.values(), job)]
        self._worst: dict[str, float] = {}
        self._reference = Reference(job, space, data)
        for trial in self.trials.values():
            self._note_worst(trial)

    @property
    def front(self) -> list[TrialRecord]:
        """The non-dominated feasible trials, best first objective first."""
        return [self.trials[number] for number in self._front]

    def trained_before(self, candidate_hash: str) -> TrialRecord | None:
        """The trial that trained, or is training, this very candidate."""
        number = self._by_hash.get(candidate_hash)
        return None if number is None else self.trials[number]

    def add(self, trial: TrialRecord) -> None:
        """Persist an ask."""
        self.store.add_trial(trial)
        self._keep(trial)
        if trial.kind == "evaluate":
            self._by_hash.setdefault(trial.candidate.hash, trial.number)

    def update(self, number: int, **changes: object) -> TrialRecord:
        """Replace fields of a trial in memory; callers persist first."""
        return self._keep(self.trials[number].model_copy(update=changes))

    def _keep(self, trial: TrialRecord) -> TrialRecord:
        before, now = self._fates.get(trial.number), fate(trial, self.job)
        if before is not None:
            self._counts[before] -= 1
        self._counts[now] += 1
        self.trials[trial.number], self._fates[trial.number] = trial, now
        self._note_worst(trial)
        return trial

    def store_outcome(self, number: int, outcome: TrialResult | TrialFailure) -> bool:
        """Persist an outcome with the figures known so far.

        Returns:
            Whether it was the trial's first.
        """
        trial = self.trials[number]
        if trial.outcome is not None:
            return False
        figures = self.figures_of(trial, outcome)
        if not self.store.store_outcome(number, outcome, figures):
            return False
        self._consider(self.update(number, outcome=outcome, figures=figures, state="result"))
        return True

    def store_profile(self, number: int, profile: Profile) -> None:
        """Persist a measurement and the figures that follow from it.

        Where one that an objective or a constraint needs is still missing, the trial counts as unmeasured.
        """
        trial = self.trials[number]
        profiles = {**trial.profiles, profile.conditions.target: profile}
        trial = trial.model_copy(update={"profiles": profiles})
        figures = self.figures_of(trial, trial.outcome)
        self.store.add_profiles(number, [profile], figures)
        self._consider(self.update(number, profiles=profiles, figures=figures))
        missing = [name for name in self._needed if METRICS[name].key not in figures]
        if missing:  # energy is all that a measurement may lack
            self.store_unmeasured(
                number,
                f"{profile.conditions.target} told no {' and no '.join(missing)}: "
                "it has no energy counter that can be read, or one that did not move",
            )

    def store_unmeasured(self, number: int, reason: str) -> None:
        """Persist that a needed measurement has failed; the trial counts as failed, its candidate is innocent."""
        self.store.set_unmeasured(number, reason)
        self.update(number, unmeasured=reason)

    def figures_of(self, trial: TrialRecord, outcome: TrialResult | TrialFailure | None) -> dict[str, float]:
        """Every figure of a trial that is known now."""
        if isinstance(outcome, TrialResult):
            return all_figures(trial.cost, outcome, trial.profiles, self.job)
        return known_figures(trial.cost, self.job)

    def told_values(self, trial: TrialRecord) -> tuple[list[float], float]:
        """What the sampler is told about a finished, rejected or repeated trial: objectives and violation."""
        source = self.trials[trial.same_as] if trial.same_as is not None else trial
        known = known_figures(source.cost, self.job)
        figures = source.figures or known
        excess = sum(violations(figures, self.job.constraints).values())
        values = objective_values(figures, self.job) if source.succeeded else None
        if values is None or not constraints_known(figures, self.job.constraints):
            values = infeasible_values(known, self.job, self.data.chance_accuracy, self._worst)
            excess = excess or 1.0
        return values, excess if excess > 0 else -1.0

    def accuracy_to_beat(self, trial: TrialRecord) -> float | None:
        """Best accuracy on the front at the same or lower cost in every other objective, if those are known."""
        known = known_figures(trial.cost, self.job)
        others = [METRICS[name] for name in self.job.objectives if name != "accuracy"]
        if "accuracy" not in self.job.objectives or any(metric.key not in known for metric in others):
            return None
        beaten = [
            member.figures["accuracy"]
            for member in self.front
            if all(_no_worse(member.figures[m.key], known[m.key], m.maximize) for m in others)
        ]
        return max(beaten, default=None)

    def counts(self) -> Counter[str]:
        """Trials by what became of them: done, failed, infeasible, running, waiting, rejected, duplicate."""
        return +self._counts

    def num_ended(self) -> int:
        """Trials that trained to some end: done, failed or infeasible."""
        return sum(self._counts[one] for one in ("done", "failed", "infeasible"))

    def knee(self) -> TrialRecord | None:
        """The front member nearest to the ideal point."""
        return knee_of(self.front, self.job, self.data)

    def hypervolume(self) -> float:
        """Volume the front dominates."""
        return hypervolume_of(self.front, self.job, self.reference())

    def reference(self) -> list[float]:
        """Where the hypervolume ends, one figure for each objective."""
        return self._reference.point()

    def _note_worst(self, trial: TrialRecord) -> None:
        """Keep the worst figure so far of each objective that only a measurement tells, and the reference."""
        self._reference.note(trial)
        for metric in (METRICS[name] for name in self.job.objectives):
            if metric.origin == "measured" and metric.key in trial.figures:
                worse, value = min if metric.maximize else max, trial.figures[metric.key]
                self._worst[metric.key] = worse(value, self._worst.get(metric.key, value))

    def _consider(self, trial: TrialRecord) -> None:
        """Let a trial onto the front if it belongs there; only the front itself is compared."""
        if is_candidate_for_front(trial, self.job):
            rivals = {trial.number, *self._front}  # in order of their numbers, as every other reader compares them
            self._front = [t.number for t in front_of([self.trials[n] for n in sorted(rivals)], self.job)]
        elif trial.number in self._front:
            self._front = [t.number for t in front_of(self.trials.values(), self.job)]


def _no_worse(value: float, than: float, maximize: bool) -> bool:
    return value >= than if maximize else value <= than
