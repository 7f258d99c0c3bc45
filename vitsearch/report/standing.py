"""How one trial compares with the others of its study."""

from __future__ import annotations

from dataclasses import dataclass

from vitsearch.config import METRICS
from vitsearch.pareto import non_dominated, ranks
from vitsearch.report.figures import directions
from vitsearch.report.front import StudyReport, is_candidate_for_front, point_of
from vitsearch.storage import TrialRecord


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A trial among the feasible ones.

    Attributes:
        on_front: Whether it is a member of the front.
        is_knee: Whether it is the knee.
        rank: Its Pareto rank, 1 on the front; None for a trial that does not compete, since it has no figures or
            breaks a constraint.
        beaten_by: Front members that are at least as good in every objective.
        num_rivals: Trials that compete, itself included.
        places: By objective, its place among them when they are ordered by that alone; equal ones share a place.
    """

    on_front: bool
    is_knee: bool
    rank: int | None
    beaten_by: tuple[int, ...]
    num_rivals: int
    places: dict[str, int]

    @classmethod
    def of(cls, trial: TrialRecord, report: StudyReport) -> Standing:
        """Compare a trial of a study."""
        job = report.job
        rivals = [one for one in report.trials if is_candidate_for_front(one, job)]
        numbers = [one.number for one in rivals]
        on_front = trial.number in {member.number for member in report.front}
        is_knee = report.knee is not None and trial.number == report.knee.number
        if trial.number not in numbers:
            return cls(
                on_front=on_front, is_knee=is_knee, rank=None, beaten_by=(), num_rivals=len(rivals), places={}
            )
        points, better = [point_of(one, job) for one in rivals], directions(job)
        own = point_of(trial, job)
        beaten_by = tuple(
            member.number
            for member in report.front
            if member.number != trial.number and non_dominated([point_of(member, job), own], better) == [0]
        )
        places: dict[str, int] = {
            name: 1 + sum(point[i] > own[i] if METRICS[name].maximize else point[i] < own[i] for point in points)
            for i, name in enumerate(job.objectives)
        }
        return cls(
            on_front=on_front, is_knee=is_knee, rank=ranks(points, better)[numbers.index(trial.number)],
            beaten_by=beaten_by, num_rivals=len(rivals), places=places,
        )  # fmt: skip
