"""What a recipe can say about a teacher."""

from __future__ import annotations

from typing import Any

import pytest

from vitsearch.config import DistillSpec, TrainSpec
from vitsearch.config.loading import parse
from vitsearch.errors import InputError

TEACHER = {"timm": "resnet18"}


@pytest.mark.parametrize(
    ("settings", "answers", "inner", "labels"),
    [
        ({}, False, {}, 1.0),
        ({"method": "soft"}, True, {}, 1.0),
        ({"inner": "tokens", "inner_weight": 0.2}, False, {"tokens": 0.2}, 1.0),
        ({"method": "combined", "terms": {"labels": 0.4, "hard": 0.1, "minivit": 2.0}}, True,
         {"minivit": 2.0}, 0.4),
        ({"method": "combined", "terms": {"tokens": 0.5, "manifold": 0.3}}, False,
         {"tokens": 0.5, "manifold": 0.3}, 0.0),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_asked_of_a_teacher(
    settings: dict[str, Any], answers: bool, inner: dict[str, float], labels: float
):  # fmt: skip
    spec = DistillSpec.model_validate({"teacher": TEACHER, **settings})
    assert (spec.is_active, spec.inner_weights, spec.labels_weight) == (answers, inner, labels)
    assert DistillSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "combined"}, r"needs terms that listen to a teacher, but got terms=\[\]; write terms"),
        ({"method": "combined", "terms": {"labels": 1.0}}, r"but got terms=\['labels'\]"),
        ({"method": "soft", "terms": {"hard": 1.0}}, "method is soft; write method: combined"),
        ({"terms": {"hard": 1.0}}, "method is none; write method: combined"),
        ({"method": "combined", "terms": {"soft": 1.0}, "inner": "tokens", "inner_weight": 0.5},
         r"write terms: \{tokens: 0.5\} and leave inner out"),
        ({"method": "combined", "terms": {"soft": 0.0}}, "greater than 0"),
        ({"method": "combined", "terms": {"sofd": 1.0}}, "did you mean 'soft'"),
        ({"method": "combined", "terms": {"soft": 1.0}, "teacher": None}, "method combined needs a teacher"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_combined(settings: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        parse(TrainSpec, {"distill": {"teacher": TEACHER, **settings}}, where="job.yaml")
