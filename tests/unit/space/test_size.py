"""The count against a brute force that draws everything and evaluates conditions on its own."""

import itertools
from typing import Any

import pytest

from vitsearch.config import SpaceSpec
from vitsearch.space import SearchSpace, continuous_fields, load_preset, num_configurations, size

BASE: dict[str, Any] = {"architecture.image_size": 8, "architecture.patch_size": 2, "architecture.mlp_ratio": 2.0}
ARCHITECTURE = {
    "architecture.depth": {"choices": [1, 2]},
    "architecture.width": {"choices": [16, 24]},
    "architecture.heads": {"choices": [2, 3, 4]},  # 3 and 4 of width 16 are one
}
SPACES: dict[str, dict[str, Any]] = {
    "architecture alone": {},
    "conditions": {
        "tokens.reducer": {"choices": ["none", "tome", "evit"]},
        "tokens.r": {"low": 1, "high": 3, "when": {"tokens.reducer": "tome"}},
        "tokens.fuse": {"choices": [True, False], "when": {"tokens.reducer": ["evit"]}},
    },
    "a chain of conditions": {
        "tokens.reducer": {"choices": ["none", "tome"]},
        "tokens.r": {"low": 1, "high": 3, "when": {"tokens.reducer": "tome"}},
        "tokens.schedule": {"choices": ["constant", "increasing"], "when": {"tokens.r": [1, 3]}},
        "precision.weight_bits": {
            "choices": [4, 8],
            "when": {"tokens.schedule": "increasing", "tokens.reducer": "tome"},
        },
    },
    "per block": {
        "precision.weight_bits": {"choices": [4, 8, 32], "per_block": True},
        "sparsity.mlp_ratio": {"low": 0.0, "high": 0.5, "step": 0.25},
    },
    "dropped blocks": {
        "sparsity.blocks_ratio": {"choices": [0.0, 0.5]},
        "sparsity.qk_ratio": {"choices": [0.0, 0.25], "per_block": True},
        "precision.weight_bits": {"choices": [4, 8], "when": {"sparsity.blocks_ratio": 0.5}},
    },
    "conditions on the architecture": {
        "precision.weight_bits": {"choices": [4, 8, 32], "when": {"architecture.depth": 2}},
        "precision.activation_bits": {"choices": [4, 8], "when": {"architecture.width": 16}, "per_block": True},
    },
}
BELONGING: dict[str, dict[str, Any]] = {
    "blocks that belong together": {
        "architecture.share_blocks": {"choices": [1, 2]},
        "sparsity.qk_ratio": {"choices": [0.0, 0.25], "per_block": True},
        "precision.weight_bits": {"choices": [4, 8], "per_block": True},
        "tokens.reducer": {"choices": ["tome"]},
        "tokens.r": {"choices": [1, 2], "per_block": True},
    },
    "class attention": {
        "architecture.class_attention_blocks": {"choices": [0, 1]},
        "sparsity.qk_ratio": {"choices": [0.0, 0.25], "per_block": True},
        "tokens.reducer": {"choices": ["tome"]},
        "tokens.r": {"choices": [1, 2], "per_block": True},
    },
}


def space(dimensions: dict[str, Any]) -> SearchSpace:
    spec = SpaceSpec.model_validate({"fixed": BASE, "dimensions": dimensions})
    return SearchSpace(spec, in_chans=1, num_classes=10)


def brute_force(one: SearchSpace) -> int:
    seen = set()
    for drawn in itertools.product(*(axis.values() for axis in one.dimensions)):
        draw = dict(zip((axis.name for axis in one.dimensions), drawn, strict=True))
        candidate = one.decode(draw)
        architecture = candidate.architecture
        active: dict[str, object] = dict(one.fixed)
        for axis in one.dimensions:
            holds = all(active.get(name, "inactive") in wanted for name, wanted in axis.when)
            if holds and (axis.block is None or axis.block <= candidate.pruned_architecture.depth):
                active[axis.name] = draw[axis.name]
        others = {k: v for k, v in active.items() if not k.startswith("architecture.")}
        seen.add((architecture, tuple(sorted(others.items()))))
    return len(seen)


@pytest.mark.parametrize("name", SPACES)
def test_the_count_is_what_drawing_everything_finds(name: str):
    one = space({**ARCHITECTURE, **SPACES[name]})
    assert num_configurations(one) == brute_force(one)


def test_by_hand():
    # widths 16 and 24: heads {2, 4} and {2, 3, 4}; two depths
    assert num_configurations(space(ARCHITECTURE)) == 2 * (2 + 3)
    # depth 1: 3 widths of bits, depth 2: 9; three ratios
    assert num_configurations(space({**ARCHITECTURE, **SPACES["per block"]})) == 5 * (3 + 9) * 3


def test_a_continuum_counts_once():
    micro = SearchSpace(load_preset("vit_micro_8"), in_chans=1, num_classes=10)
    assert continuous_fields(micro) == ["tokens.tau"]
    # heads by width (nearest divisor of 1, 2, 4, 8): 4 everywhere; 6 depths, 3 patches, 4 ratios; reducers
    # 1 + 4 r of tome + 5 keep + 4 r of ppt; 5 MLP ratios, 3 head ratios, 5 x 4 bits
    assert num_configurations(micro) == 6 * 6 * 4 * 3 * 4 * (1 + 4 + 5 + 4) * 5 * 3 * 20


@pytest.mark.parametrize("name", ["per block", "conditions on the architecture"])
def test_huge_spaces_count_draws(monkeypatch: pytest.MonkeyPatch, name: str):
    one = space({**ARCHITECTURE, "architecture.heads": {"choices": [2, 4]}, **SPACES[name]})  # nothing to repair
    exact = num_configurations(one)
    monkeypatch.setattr(size, "MAX_ENUMERATED", 1)
    assert num_configurations(one) == exact == brute_force(one)


@pytest.mark.parametrize("name", BELONGING)
def test_figures_that_blocks_have_in_common_count_once(name: str):
    one = space({**ARCHITECTURE, "architecture.heads": {"choices": [2]}, **BELONGING[name]})
    draws = itertools.product(*(axis.values() for axis in one.dimensions))
    names = [axis.name for axis in one.dimensions]
    different = {one.decode(dict(zip(names, drawn, strict=True))).hash for drawn in draws}
    assert num_configurations(one) == len(different)
