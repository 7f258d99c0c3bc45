"""Fronts by plain comparison; ``tests/property/test_pareto.py`` holds them against the real ones."""

import json
from typing import Any

from vitsearch.testing import front_of_results

OBJECTIVES = {"accuracy": True, "eer_pct": False}


def row(trial: int, kind: str = "result", **figures: Any) -> tuple[int, str, str]:
    return trial, json.dumps({"kind": kind}), json.dumps(figures)


def test_better_in_one_and_worse_in_none_is_on_the_front():
    rows = [
        row(0, accuracy=0.8, eer_pct=3.0),
        row(1, accuracy=0.8, eer_pct=2.0),
        row(2, accuracy=0.9, eer_pct=5.0),
        row(3, accuracy=0.7, eer_pct=2.5),
    ]
    assert front_of_results(rows, OBJECTIVES) == {1, 2}


def test_of_equal_models_the_earliest_counts_in_whatever_order_they_are_read():
    rows = [row(7, accuracy=0.8, eer_pct=2.0), row(3, accuracy=0.8, eer_pct=2.0)]
    assert front_of_results(rows, OBJECTIVES) == {3}


def test_a_failure_has_no_place_on_it():
    assert front_of_results([row(0, "failure", eer_pct=0.1), row(1, accuracy=0.8, eer_pct=2.0)], OBJECTIVES) == {1}
