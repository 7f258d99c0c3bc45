"""One trial as people read it, whatever has become of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.report import factory
from vitsearch.messages import TrialFailure
from vitsearch.report import StudyReport
from vitsearch.report.account import trial_account
from vitsearch.report.standing import Standing
from vitsearch.report.tables import fate


def text_of(report: StudyReport, number: int) -> str:
    return "\n".join(trial_account(report.trials[number], report))


def test_the_knee_with_its_test_accuracy_and_measurements(tmp_path: Path):
    store = factory.new_store(tmp_path, factory.job(objectives=["accuracy", "latency"]))
    factory.add_trials(store, 30)
    knee = factory.finalize(store, accuracy=0.9876)
    report = StudyReport.load(store)
    text, trial = text_of(report, knee), report.trials[knee]
    assert text.startswith(f"trial {knee} of study digits: done, on the front, ★ the knee\n")
    assert trial.candidate.summary() in text
    assert trial.candidate.hash in text
    assert "98.76 % on the test split" in text
    assert "Pareto rank 1 among 30 feasible trials." in text
    assert "1 thread, 5 warm-up and 30 measured calls, nothing else running" in text
    assert "latency p95" in text
    assert "knee (" not in text  # it is not compared with itself


def test_a_dominated_trial_names_those_that_are_better(tmp_path: Path):
    report = factory.report(tmp_path, None, 30)
    members = {trial.number for trial in report.front}
    for trial in report.trials:
        standing = Standing.of(trial, report)
        assert standing.on_front == (trial.number in members)
        assert bool(standing.beaten_by) != standing.on_front
        assert (standing.rank == 1) == standing.on_front
        assert set(standing.beaten_by) <= members
    best = max(report.trials, key=lambda trial: trial.figures["accuracy"])
    assert Standing.of(best, report).places["accuracy"] == 1
    loser = next(trial for trial in report.trials if trial.number not in members)
    assert "at least as good in every objective" in text_of(report, loser.number)
    assert f"knee ({report.knee and report.knee.number})" in text_of(report, loser.number)


def test_failed_rejected_and_infeasible_trials_say_why(tmp_path: Path):
    job = factory.job(constraints=[{"metric": "eer", "max": 12}, {"metric": "accuracy", "min": 0.8}])
    report = factory.report(tmp_path, job, 60, fail_every=10)
    by_fate = {fate(trial, job): trial.number for trial in report.trials}
    assert "why        train: nan_loss: the loss is NaN" in text_of(report, by_fate["failed"])
    assert "The candidate itself is the reason." in text_of(report, by_fate["failed"])
    rejected = text_of(report, by_fate["rejected"])
    assert "why        EER (%)" in rejected
    assert "known before training: exact" in rejected
    assert "It does not compete for the front." in rejected
    assert "is below 0.8" in text_of(report, by_fate["infeasible"])


def test_running_waiting_and_repeated_trials(tmp_path: Path):
    store = factory.new_store(tmp_path)
    factory.add_trials(store, 2)
    first = store.trials()[0]
    new = {"outcome": None, "figures": {}, "finished_at": None}
    store.add_trial(
        first.model_copy(update={**new, "number": 2, "kind": "duplicate", "state": "told", "same_as": 0})
    )
    store.add_trial(first.model_copy(update={**new, "number": 3, "state": "asked"}))
    store.add_trial(first.model_copy(update={**new, "number": 4, "state": "asked"}))
    store.lease_trial(4, "trainer-1", attempt=2)
    report = StudyReport.load(store)
    assert "why        same candidate as trial 0" in text_of(report, 2)
    assert "--select trial=0" in text_of(report, 2)
    assert "Asked for again as trial 2." in text_of(report, 0)
    assert ": waiting\n" in text_of(report, 3)
    assert ": running\n" in text_of(report, 4)
    assert "Worker trainer-1 trains it, attempt 2." in text_of(report, 4)


def test_a_failed_retraining_is_told(tmp_path: Path):
    store = factory.new_store(tmp_path)
    factory.add_trials(store, 5)
    knee = StudyReport.load(store).knee
    assert knee is not None
    failure = TrialFailure(trial=knee.number, stage="train", failure="out_of_memory", message="no memory was left")
    store.store_final(knee.number, failure)
    assert "Retraining at full length failed: train: no memory was left" in text_of(
        StudyReport.load(store), knee.number
    )


@pytest.mark.parametrize("count", [0, 1])
def test_a_study_with_hardly_a_trial(tmp_path: Path, count: int):
    report = factory.report(tmp_path, None, count)
    for trial in report.trials:
        assert text_of(report, trial.number).startswith("trial 0 of study digits: done, on the front, ★ the knee")
