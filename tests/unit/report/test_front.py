from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.report.factory import add_trials, job, new_store
from vitsearch.report.front import front_of, point_of


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
