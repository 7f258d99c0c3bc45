from typing import Any

import pytest

from vitsearch.config import DimensionSpec, SpaceSpec, parse
from vitsearch.errors import InputError


@pytest.mark.parametrize(
    ("spec", "rule"),
    [
        ({}, "needs choices"),
        ({"low": 1}, "both low and high"),
        ({"choices": []}, "at least 1"),
        ({"choices": [1, 1]}, "must differ"),
        ({"choices": [1], "low": 1}, "either choices or low"),
        ({"choices": [1], "log": True}, "either choices or low"),
        ({"low": 2, "high": 1}, "low must not exceed high, but got low=2, high=1"),
        ({"low": 1, "high": 2, "step": 0}, "step must be positive"),
        ({"low": 1.0, "high": 2.0, "step": 0.1, "log": True}, "cannot go with log"),
        ({"low": 0, "high": 2, "log": True}, "log needs low > 0, but got low=0"),
        ({"low": 1, "high": 2, "step": 0.5}, "needs an integer step, but got 0.5"),
    ],
)
def test_impossible_dimensions(spec: dict[str, Any], rule: str):
    with pytest.raises(InputError, match=rule):
        parse(DimensionSpec, spec, where="s")


def test_values_keep_their_type():
    spec = parse(SpaceSpec, {"fixed": {"a": True, "b": 1, "c": 1.0, "d": "1"}}, where="s")
    assert [type(v) for v in spec.fixed.values()] == [bool, int, float, str]


def test_integers_only_where_both_ends_are():
    assert DimensionSpec(low=1, high=2).is_integer
    assert not DimensionSpec(low=1, high=2.0).is_integer
    assert not DimensionSpec(choices=(1, 2)).is_integer


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"low": 1, "high": 2_000_000_000}, "at most 100,000 values, but got 1,999,999,999"),
        ({"low": 0.0, "high": 1.0, "step": 1e-9}, "at most 100,000 values"),
        ({"low": 1, "high": 10**400}, "must be at most 1e[+]12"),
        ({"low": 1, "high": 10**9, "log": True}, "at most 100,000 values"),
    ],
)
def test_a_range_can_be_listed(given: dict[str, object], match: str):
    with pytest.raises(ValueError, match=match):
        DimensionSpec.model_validate(given)
