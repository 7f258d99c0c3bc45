"""What MLflow shows of a study: a run for the study, a child run for every trial that ever was on the front."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING

from vitsearch.config.addresses import without_passwords
from vitsearch.errors import hide_passwords
from vitsearch.messages import TrialResult
from vitsearch.report import StudyReport
from vitsearch.report.files import write_report_files
from vitsearch.report.tables import fate, flatten, front_markdown, trial_markdown
from vitsearch.storage import KnownTrials, StudyStore, TrialRecord
from vitsearch.tracking.runs import MAX_TAG, STUDY, KnownRun, StudyRuns

if TYPE_CHECKING:
    from mlflow import MlflowClient

ARTIFACTS_EVERY_S = 60.0  # five megabytes each time
NOTE = "mlflow.note.content"
SOURCE = {"mlflow.source.name": "vitsearch", "mlflow.source.type": "LOCAL"}


class View:
    """Brings MLflow up to what the store holds; every call may be repeated.

    Args:
        client: Connected.
        experiment_id: Where the runs go.
        store: The study.
        out: The run's folder.
        known: The study's trials as read before; brought up to date.
    """

    def __init__(
        self, client: MlflowClient, experiment_id: str, store: StudyStore, out: Path, known: KnownTrials
    ) -> None:
        self._client, self._store, self._out, self._known = client, store, out, known
        self._runs = StudyRuns(client, experiment_id, study_key(self._report()))
        self._artifacts_at: float | None = None

    def sync(self, ever: AbstractSet[int] = frozenset()) -> None:
        """Show the front as it is now.

        Args:
            ever: Trials that were on the front since the last call, whether they still are or not.
        """
        report = self._report()
        parent = self._sync_study(report)
        self._runs.set_status(parent, "RUNNING")
        self._sync_trials(report, parent, ever)
        if self._artifacts_at is None or time.monotonic() - self._artifacts_at > ARTIFACTS_EVERY_S:
            self._log_artifacts(report, parent)

    def _report(self) -> StudyReport:
        """The study as it is now; trials that ended are not read again, however often the front changes."""
        return StudyReport.load(self._store, self._known)

    def finish(self) -> None:
        """Show the final state with all files, and end the study's run."""
        self._end("FINISHED")

    def interrupt(self) -> None:
        """The same for a study that a person has stopped; a later driver lets it run again."""
        self._end("KILLED")

    def _end(self, status: str) -> None:
        self._runs.look_up()  # what was made twice since is seen by nobody later
        report = self._report()
        parent = self._sync_study(report)
        self._sync_trials(report, parent, frozenset())
        self._log_artifacts(report, parent)
        self._runs.set_status(parent, status)

    def _sync_study(self, report: StudyReport) -> KnownRun:
        job = report.job
        done = [trial for trial in report.trials if fate(trial, job) == "done"]
        started_at = min((trial.asked_at for trial in report.trials), default=time.time())
        tags = {"vitsearch.study": report.study.name, "vitsearch.kind": "study", **SOURCE}
        run = self._runs.get_or_create(STUDY, report.study.name, started_at, tags)
        metrics = {"hypervolume": report.hypervolume, "front_size": len(report.front), "trials_done": len(done)}
        best = max((trial.figures["accuracy"] for trial in done if "accuracy" in trial.figures), default=None)
        self._runs.write(
            run,
            params=flatten(without_passwords(job)),
            metrics=metrics if best is None else {**metrics, "best_accuracy": best},
            tags={
                NOTE: front_markdown(report, max_chars=MAX_TAG),
                "vitsearch.data_fingerprint": report.data.fingerprint,
                "vitsearch.knee": "none" if report.knee is None else str(report.knee.number),
            },
            step=len(done),
        )
        return run

    def _sync_trials(self, report: StudyReport, parent: KnownRun, ever: AbstractSet[int]) -> None:
        trials = {trial.number: trial for trial in report.trials}
        current = {trial.number for trial in report.front}
        for number in sorted(current | ever | set(self._runs.trials())):
            if number in trials:
                self._sync_trial(trials[number], report, parent, is_member=number in current)

    def _sync_trial(self, trial: TrialRecord, report: StudyReport, parent: KnownRun, *, is_member: bool) -> None:
        tags = {
            "mlflow.parentRunId": parent.run_id,
            "vitsearch.study": report.study.name,
            "vitsearch.kind": "trial",
        }
        run = self._runs.get_or_create(
            trial.number, f"trial {trial.number:04d}", trial.asked_at, {**tags, **SOURCE}
        )
        knee = report.knee is not None and report.knee.number == trial.number
        self._runs.write(
            run,
            params={"summary": trial.candidate.summary(), **flatten(trial.candidate)},
            metrics=_metrics(trial, report),
            tags={
                "pareto": "current" if is_member else "former",
                "knee": "true" if knee else "false",
                "vitsearch.candidate_hash": trial.candidate.hash,
                NOTE: trial_markdown(trial, report),
            },
        )
        if run.status != "FINISHED":
            self._client.log_text(run.run_id, trial.candidate.model_dump_json(indent=2) + "\n", "candidate.json")
            self._runs.set_status(run, "FINISHED", trial.finished_at)

    def _log_artifacts(self, report: StudyReport, parent: KnownRun) -> None:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder)
            write_report_files(report, out)  # of what cannot be drawn, the search tells in the end
            job_file = self._out / "job.yaml"
            if job_file.is_file():
                text = hide_passwords(job_file.read_text(encoding="utf-8"))
                (out / "job.yaml").write_text(text, encoding="utf-8")
            for file in sorted(out.iterdir()):
                self._client.log_artifact(parent.run_id, str(file))
        self._artifacts_at = time.monotonic()


def study_key(report: StudyReport) -> str:
    """What tells a study from every other on the same server.

    Name and row id are the same for one job run into two folders, so the time of the first ask joins them.
    """
    first = report.trials[0].asked_at if report.trials else 0.0
    return f"{report.study.name}:{report.study.id}-{round(1000 * first):x}"


def _metrics(trial: TrialRecord, report: StudyReport) -> dict[str, float]:
    """The trial's figures, the final test accuracy, and what was measured on further targets."""
    found = dict(trial.figures)
    for name, profile in trial.profiles.items():
        for one in (profile, *profile.others):
            if one.accuracy is not None:
                found[f"{name}/{one.conditions.runtime.partition(' ')[0]}/accuracy"] = one.accuracy
        if name != report.job.targets[0].name:
            found |= {
                f"{name}/latency_ms_p50": profile.latency_ms_p50,
                f"{name}/latency_ms_p95": profile.latency_ms_p95,
                f"{name}/peak_memory_mb": profile.peak_memory_mb,
            }
            if profile.energy_mj is not None:
                found[f"{name}/energy_mj"] = profile.energy_mj
    if isinstance(trial.final, TrialResult):
        found["test_accuracy"] = trial.final.accuracy
    return found
