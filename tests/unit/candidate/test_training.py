"""Settings of the recipe that a candidate has of its own."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tests.unit.compress.factory import candidate
from vitsearch.candidate import Candidate, Training
from vitsearch.config import TrainSpec

JOB = TrainSpec.model_validate(
    {
        "recipe": "plain",
        "lr": 2e-3,
        "mixup": 0.3,
        "epochs": 7,
        "distill": {"teacher": {"timm": "test_vit"}, "alpha": 0.7},
    }
)
SOFT = {"method": "soft", "temperature": 3.0}


def training(**settings: Any) -> Training:
    return Training.model_validate(settings)


def test_none_is_the_job_as_it_is() -> None:
    assert training().applied_to(JOB) is JOB
    assert training().summary() == ""
    plain = candidate()
    assert "training" not in plain.model_dump(mode="json")
    assert plain.hash == candidate(training={}).hash == candidate(training={"distill": {}}).hash


def test_what_is_given_takes_the_place_of_the_jobs() -> None:
    found = training(lr=1e-4, distill=SOFT).applied_to(JOB)
    assert (found.lr, found.mixup, found.epochs) == (1e-4, 0.3, 7)
    assert (found.distill.method, found.distill.temperature, found.distill.alpha) == ("soft", 3.0, 0.7)
    assert found.distill.teacher == JOB.distill.teacher


def test_a_candidate_carries_it() -> None:
    one = candidate(training={"lr": 1e-3, "distill": SOFT})
    assert one.hash != candidate().hash
    assert one.summary().endswith(" · lr=0.001 method=soft temperature=3")
    assert Candidate.model_validate_json(one.model_dump_json()) == one
    assert one.model_dump(mode="json")["training"] == {"lr": 1e-3, "distill": SOFT}


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ({"distill": {"method": "none", "alpha": 0.1, "temperature": 2.0}}, {"distill": {"method": "none"}}),
        ({"distill": {"inner": "none", "inner_weight": 0.1, "until": 0.5}}, {"distill": {"inner": "none"}}),
        ({"randaugment_ops": 0, "randaugment_magnitude": 5}, {"randaugment_ops": 0}),
    ],
)
def test_what_it_switches_off_makes_no_difference(given: dict[str, Any], same: dict[str, Any]) -> None:
    assert candidate(training=given).hash == candidate(training=same).hash


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"lr": 0.0}, "greater than 0"),
        ({"optimizer": "adamm"}, "adamw"),
        ({"mixup": -1.0}, "greater than or equal to 0"),
        ({"repeats": 99}, "less than or equal to 16"),
        ({"drop_path": 1.0}, "less than 1"),
        ({"epochs": 3}, "Extra inputs"),
        ({"distill": {"alpha": 2.0}}, "less than or equal to 1"),
        ({"distill": {"method": "co_advise"}}, "'none', 'soft', 'hard' or 'deit'"),
        ({"distill": {"teacher": {"timm": "x"}}}, "Extra inputs"),
    ],
    ids=str,
)
def test_impossible_settings(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        training(**settings)


def test_settings_that_do_not_go_with_the_job() -> None:
    with pytest.raises(ValidationError, match="method soft needs a teacher"):
        training(distill=SOFT).applied_to(TrainSpec())
    with pytest.raises(ValidationError, match="init: pretrained needs weights"):
        training(init="pretrained").applied_to(JOB)
