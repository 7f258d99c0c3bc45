"""What is said when a search has ended."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from vitsearch.cli.finding import StudyName
from vitsearch.config import ConstraintSpec, JobSpec
from vitsearch.report import StudyReport
from vitsearch.report.figures import known_figures, violations
from vitsearch.report.tables import counts_words
from vitsearch.search import is_scratch
from vitsearch.storage import TrialRecord
from vitsearch.tracking import study_url

if TYPE_CHECKING:
    from vitsearch.cli.session import Ended


def next_steps(out: Path, ended: Ended) -> str:
    """Why it ended, what it left behind, and commands to paste."""
    job, folder = ended.report.job, shlex.quote(str(out))
    if is_scratch(out):
        return _by_name(ended)
    lines = [
        f"\nended: {ended.reason}",
        f"picture  {out / 'pareto.png'}   page  {out / 'pareto.html'}   table  {out / 'trials.csv'}",
    ]
    if job.tracking.enabled:
        elsewhere = study_url(job.tracking.uri, out, job) if job.tracking.uri else None
        lines.append(f"browse   {elsewhere or f'vitsearch ui {folder}'}")
    if ended.report.front:
        bundle = shlex.quote(str(out / "bundle"))
        lines.append(f"export   vitsearch export {folder} --select knee --out {bundle}")
    if ended.report.front or ended.interrupted:
        lines.append(f"more     vitsearch resume {folder} --trials N   (N in all)")
    return "\n".join(lines)


def _by_name(ended: Ended) -> str:
    """The same for a study that has no folder and is named in its database from now on."""
    job = ended.report.job
    words = StudyName(name=job.name, address=None, database=job.storage.url).words
    lines = [
        f"\nended: {ended.reason}",
        f"front    vitsearch pareto {words}   (--png, --html and --csv make files)",
    ]
    if job.tracking.enabled and job.tracking.uri:
        lines.append(f"browse   {study_url(job.tracking.uri, Path(), job)}")
    if ended.report.front:
        lines.append(f"export   vitsearch export {words} --select knee --out bundle")
    if ended.report.front or ended.interrupted:
        lines.append(f"more     vitsearch resume {words} --trials N   (N in all)")
    return "\n".join(lines)


def why_empty(report: StudyReport) -> str:
    """Why a study has no front: what the constraints have turned away, or that nothing succeeded."""
    broken = Counter(words for trial in report.trials for words in broken_constraints(trial, report.job))
    if not broken:
        return f"no trial succeeded ({counts_words(report)}); see trials.csv for the reasons"
    asked = sum(trial.same_as is None for trial in report.trials)
    counted = ", ".join(f"{words} turned away {count}" for words, count in broken.most_common())
    return (
        f"no candidate meets the constraints: of {asked}, {counted}; "
        f"relax them or change the space, and run the job with a new --out"
    )


def broken_constraints(trial: TrialRecord, job: JobSpec) -> list[str]:
    """The constraints that a trial breaks, as the job words them; repeated candidates count once."""
    if trial.same_as is not None:
        return []
    figures = trial.figures or known_figures(trial.cost, job)
    bounds = [
        ConstraintSpec.model_validate({"metric": constraint.metric, bound: value})
        for constraint in job.constraints
        for bound, value in (("min", constraint.min), ("max", constraint.max))
        if value is not None
    ]
    return [_words(bound) for bound in bounds if violations(figures, [bound])]


def _words(bound: ConstraintSpec) -> str:
    if bound.min is not None:
        return f"{bound.metric} of at least {bound.min:,g}"
    return f"{bound.metric} of at most {bound.max:,g}"
