from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.report.factory import add_trials, job, new_store
from tests.unit.search.factory import DATA, make_driver, make_job, make_store
from vitsearch.cost import cost_of
from vitsearch.messages import TrialRequest, TrialResult
from vitsearch.pareto import knee
from vitsearch.report import StudyReport, directions
from vitsearch.report.front import beats_chance, front_of, point_of
from vitsearch.testing import noop_result


@pytest.mark.parametrize(
    ("objectives", "best_is_largest"), [(["accuracy", "eer"], True), (["eer", "accuracy"], False)]
)
def test_the_best_first_objective_stands_first(
    objectives: list[str], best_is_largest: bool, tmp_path: Path
) -> None:
    one = job(objectives=objectives)
    store = new_store(tmp_path, one)
    add_trials(store, 40)
    front = front_of(store.trials(), one)
    firsts = [point_of(trial, one)[0] for trial in front]
    assert len(front) > 2
    assert firsts == sorted(firsts, reverse=best_is_largest)


def test_ties_stand_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """Three objectives, the first of them equal."""
    one = job(objectives=["accuracy", "params", "macs"])
    store = new_store(tmp_path, one)
    add_trials(store, 40)
    equal = [
        trial.model_copy(update={"figures": {**trial.figures, "accuracy": 0.5}})
        for trial in store.trials()
        if trial.succeeded
    ]
    front = front_of(reversed(equal), one)
    assert len(front) > 1
    assert [trial.number for trial in front] == sorted(trial.number for trial in front)


def test_a_model_that_has_learned_nothing_is_never_the_knee(tmp_path: Path) -> None:
    def run(request: TrialRequest) -> TrialResult:
        params = cost_of(request.candidate).num_params
        accuracy = 0.7 if params > 400_000 else 0.13 if params > 5_600 else DATA.chance_accuracy
        return noop_result(request).model_copy(update={"accuracy": accuracy})

    store = make_store(
        tmp_path, make_job(objectives=["accuracy", "params"], search={"sampler": "random", "trials": 40})
    )
    driver = make_driver(tmp_path, store, run)
    driver.run()
    report = StudyReport.load(store)
    job = store.study().job
    nearest = report.front[knee([point_of(trial, job) for trial in report.front], directions(job))]
    assert not beats_chance(nearest, DATA), "nearest to the ideal point: it costs next to nothing"
    assert report.knee is not None
    assert report.knee.figures["accuracy"] == 0.7
    found = driver.study.knee()
    assert found is not None
    assert found.number == report.knee.number


def test_where_nothing_was_learned_there_is_a_knee_still(tmp_path: Path) -> None:
    def run(request: TrialRequest) -> TrialResult:
        return noop_result(request).model_copy(update={"accuracy": DATA.chance_accuracy})

    store = make_store(tmp_path, make_job())
    make_driver(tmp_path, store, run).run()
    assert StudyReport.load(store).knee is not None
