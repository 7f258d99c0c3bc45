"""Candidates whose cost is known only within bounds before they are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.search.factory import make_driver, make_job, make_store, make_study
from vitsearch.cost import cost_of
from vitsearch.messages import MeasuredCost, TrialRequest, TrialResult
from vitsearch.report import StudyReport
from vitsearch.report.front import reference_of
from vitsearch.storage import StudyStore
from vitsearch.testing import noop_result

SPACE: dict[str, Any] = {
    "fixed": {
        "architecture.image_size": 8, "architecture.depth": 2, "architecture.heads": 1,
        "architecture.patch_size": 2, "tokens.reducer": "threshold",
    },
    "dimensions": {
        "architecture.width": {"choices": [16, 32, 48]}, "tokens.tau": {"low": 0.01, "high": 0.1},
    },
}  # fmt: skip
FACTOR = 3


def measured(request: TrialRequest) -> TrialResult:
    """Images need three times the MACs of the bound."""
    known = cost_of(request.candidate)
    fields = {name: getattr(known, name) for name in MeasuredCost.model_fields}
    fields |= {"num_macs": FACTOR * known.num_macs, "num_macs_p95": 4 * known.num_macs}
    return noop_result(request).model_copy(update={"measured": MeasuredCost(**fields)})


def searched(folder: Path, **job: Any) -> StudyStore:
    folder.mkdir(exist_ok=True)
    store = make_store(folder, make_job(space=SPACE, search={"sampler": "random", "trials": 4}, **job))
    driver = make_driver(folder, store, measured)
    driver.run()
    told = {t.number: t for t in driver._asker.study.get_trials(deepcopy=False)}
    for trial in store.trials():
        if trial.kind == "evaluate":
            assert told[trial.number].values == [trial.figures["accuracy"], trial.figures["eer_pct"]]
    return store


def test_the_sampler_is_told_what_was_measured(tmp_path: Path) -> None:
    store = searched(tmp_path)
    for trial in store.trials():
        if trial.kind != "evaluate":
            continue
        assert trial.cost.kind == "bounded"
        assert trial.figures["num_macs"] == FACTOR * trial.cost.num_macs
        bound = trial.cost.eer_pct()
        real = trial.cost.model_copy(update={"num_macs": FACTOR * trial.cost.num_macs}).eer_pct()
        assert bound is not None
        assert trial.figures["eer_pct"] == pytest.approx(real)
        assert trial.figures["eer_pct"] > bound
    again = make_study(store)  # as a driver that resumes sees it
    assert {t.number: t.figures for t in again.trials.values()} == {t.number: t.figures for t in store.trials()}
    report = StudyReport.load(store)
    assert {m.figures["num_macs"] for m in report.front} <= {
        t.figures["num_macs"] for t in store.trials() if t.figures
    }


def test_a_constraint_counts_twice_by_the_bound_before_and_by_the_measurement_after(tmp_path: Path) -> None:
    """Bounds of 30,000 to 200,000 MACs or so; three times as much is really needed."""
    macs = sorted(t.cost.num_macs for t in searched(tmp_path / "free").trials())
    limit = 2 * macs[0]
    store = searched(tmp_path / "limited", constraints=[{"metric": "macs", "max": limit}])
    trials = store.trials()
    assert {t.kind for t in trials} >= {"evaluate", "rejected"}
    assert all(t.cost.num_macs > limit for t in trials if t.kind == "rejected")
    trained = [t for t in trials if t.kind == "evaluate"]
    assert trained
    assert all(t.cost.num_macs <= limit < t.figures["num_macs"] for t in trained)
    assert StudyReport.load(store).front == []


def test_the_hypervolume_reaches_to_what_was_measured(tmp_path: Path) -> None:
    job = make_job(space=SPACE, search={"sampler": "random", "trials": 4}, objectives=["accuracy", "macs"])
    store = make_store(tmp_path, job)
    driver = make_driver(tmp_path, store, measured)
    driver.run()
    study = driver.study
    bound = reference_of(job, study.space, study.data, study.trials.values())[1]
    assert bound >= max(t.figures["num_macs"] for t in store.trials() if t.figures)
    assert study.hypervolume() > 0
