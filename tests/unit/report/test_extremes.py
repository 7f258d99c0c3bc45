"""The ends of a space's EER against drawing everything, drawing at random and changing one setting at a time."""

import itertools
import random
from typing import Any

import pytest

from vitsearch.config import EerSpec, SpaceSpec, Value
from vitsearch.cost import cost_of, eer_pct
from vitsearch.errors import InputError
from vitsearch.report.extremes import eer_range
from vitsearch.space import SearchSpace, load_preset, preset_names

RANDOM_DRAWS = 2000
PRESETS = [  # the larger ones take ten seconds and more
    pytest.param(name, marks=[] if name in {"vit_micro_8", "vit_tiny_32"} else pytest.mark.slow)
    for name in preset_names()
]
FIXED: dict[str, Any] = {"architecture.image_size": 8, "architecture.mlp_ratio": 1.0}
SMALL: dict[str, dict[str, Any]] = {
    "architecture": {
        "architecture.depth": {"low": 1, "high": 5},
        "architecture.mlp_ratio": {"choices": [3.0, 0.5]},
    },
    "reducers": {
        "tokens.reducer": {"choices": ["tome", "evit", "none", "ppt"]},
        "tokens.r": {"low": 1, "high": 6, "when": {"tokens.reducer": ["tome", "ppt"]}},
        "tokens.schedule": {"choices": ["increasing", "decreasing"], "when": {"tokens.reducer": "tome"}},
        "tokens.keep": {"choices": [0.5, 0.9, 0.99], "when": {"tokens.reducer": "evit"}},
    },
    "costly reducers only": {
        "tokens.reducer": {"choices": ["tome", "ppt"]},
        "tokens.r": {"low": 1, "high": 2},
        "architecture.depth": {"low": 1, "high": 4},
    },
    "pruning and bits": {
        "sparsity.mlp_ratio": {"choices": [0.5, 0.0], "per_block": True},
        "sparsity.heads_ratio": {"choices": [0.25, 0.0, 0.5]},
        "precision.weight_bits": {"choices": [16, 4, 32], "per_block": True},
        "precision.activation_bits": {"choices": [8, 6]},
    },
}


def preset(name: str) -> SearchSpace:
    return SearchSpace(load_preset(name), in_chans=3, num_classes=10)


def small(name: str) -> SearchSpace:
    dimensions = {
        "architecture.width": {"choices": [12, 16, 20]},
        "architecture.heads": {"choices": [1, 3, 4]},
        "architecture.patch_size": {"choices": [1, 2]},
        "architecture.depth": {"choices": [2]},
        **SMALL[name],
    }
    spec = SpaceSpec.model_validate({"fixed": {k: v for k, v in FIXED.items() if k not in dimensions},
                                     "dimensions": dimensions})  # fmt: skip
    return SearchSpace(spec, in_chans=1, num_classes=10)


def rate(space: SearchSpace, draw: dict[str, Value]) -> float:
    return eer_pct(cost_of(space.decode(draw)).eer_values())


@pytest.mark.parametrize("name", SMALL)
def test_the_ends_are_what_drawing_everything_finds(name: str):
    space = small(name)
    names = [axis.name for axis in space.dimensions]
    everything = itertools.product(*(axis.values() for axis in space.dimensions))
    rates = [rate(space, dict(zip(names, drawn, strict=True))) for drawn in everything]
    found = eer_range(space)
    assert (found.low_pct, found.high_pct) == pytest.approx((min(rates), max(rates)), rel=1e-12)


@pytest.mark.parametrize("name", PRESETS)
def test_no_draw_of_a_preset_lies_outside(name: str):
    space, generator = preset(name), random.Random(1)
    found = eer_range(space)
    low, high = found.low_pct * (1 - 1e-12), found.high_pct * (1 + 1e-12)
    for _ in range(RANDOM_DRAWS):
        draw = {axis.name: generator.choice(axis.values()) for axis in space.dimensions}
        assert low <= rate(space, draw) <= high, draw


@pytest.mark.parametrize("name", PRESETS)
def test_both_ends_are_members_and_no_single_change_goes_past_them(name: str):
    space = preset(name)
    found = eer_range(space)
    low, high = found.low_pct * (1 - 1e-12), found.high_pct * (1 + 1e-12)
    for draw, candidate, end in (
        (found.cheapest_draw, found.cheapest, found.low_pct),
        (found.costliest_draw, found.costliest, found.high_pct),
    ):
        assert space.decode(draw) == candidate
        assert all(axis.contains(draw[axis.name]) for axis in space.dimensions)
        assert rate(space, dict(draw)) == end
        for axis in space.dimensions:
            for value in axis.values():
                assert low <= rate(space, {**draw, axis.name: value}) <= high, (axis.name, value)


@pytest.mark.slow
def test_deit_224_reaches_far_beyond_what_random_draws_show():
    found = eer_range(preset("deit_224"))
    assert found.costliest.summary() == "d14 w768 h3 p14 m4"
    assert found.low_pct < 4.5
    assert found.high_pct > 122.5


def test_other_metrics_and_references_count():
    space = preset("vit_micro_8")
    chosen = EerSpec.model_validate({"metrics": ["macs"], "reference": {"flops_g": 1e-3}})
    found = eer_range(space, chosen)
    assert found.high_pct == pytest.approx(cost_of(found.costliest).num_macs / 1e6 * 100)
    assert found.high_pct > eer_range(space).high_pct


def test_a_measured_eer_has_no_range():
    chosen = EerSpec.model_validate({"metrics": ["latency"], "reference": {"latency_ms": 1}})
    with pytest.raises(InputError, match="no measurement decides") as caught:
        eer_range(preset("vit_micro_8"), chosen)
    assert caught.value.field == "eer.metrics"
