"""Whatever a sampler draws from a preset, the result is a valid canonical candidate."""

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitsearch.candidate import Candidate
from vitsearch.config import Value
from vitsearch.cost import cost_of
from vitsearch.space import Dimension, SearchSpace, load_preset, preset_names

PRESETS = preset_names()


@cache
def preset(name: str) -> SearchSpace:
    return SearchSpace(load_preset(name), in_chans=3, num_classes=10)


def values_of(axis: Dimension) -> st.SearchStrategy[Value]:
    if axis.cardinality is None:
        return st.floats(axis.low, axis.high)
    return st.sampled_from(axis.values())


@cache
def draws(name: str) -> st.SearchStrategy[dict[str, Value]]:
    return st.fixed_dictionaries({axis.name: values_of(axis) for axis in preset(name).dimensions})


@st.composite
def draw_of_any_preset(draw: st.DrawFn) -> tuple[SearchSpace, dict[str, Value], dict[str, Value]]:
    """A space and two draws from it."""
    name = draw(st.sampled_from(PRESETS))
    return preset(name), draw(draws(name)), draw(draws(name))


def is_active(space: SearchSpace, axis: Dimension, drawn: dict[str, Value], depth: int) -> bool:
    """Whether an axis counts, worked out apart from the library (conditions of the presets name free axes)."""
    known: dict[str, Any] = {**drawn, **space.fixed}
    holds = all(known[name] in wanted for name, wanted in axis.when)
    return holds and (axis.block is None or axis.block <= depth)


def test_there_are_presets():
    assert len(PRESETS) >= 4


@pytest.mark.parametrize("name", PRESETS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_every_draw_is_a_canonical_candidate(name: str, data: st.DataObject):
    space = preset(name)
    drawn = data.draw(draws(name))
    candidate = space.decode(drawn)
    assert candidate == space.decode(drawn)  # deterministic
    assert candidate.canonical() == candidate
    assert candidate.canonical().hash == candidate.hash
    assert Candidate.model_validate_json(candidate.model_dump_json()) == candidate
    cost = cost_of(candidate)
    assert min(cost.num_params, cost.num_macs, cost.bits, cost.size_mb, *cost.tokens) > 0
    assert list(cost.tokens) == sorted(cost.tokens, reverse=True)


@given(case=draw_of_any_preset())
@settings(max_examples=150, deadline=None)
def test_inactive_axes_change_nothing(case: tuple[SearchSpace, dict[str, Value], dict[str, Value]]):
    space, drawn, other = case
    candidate = space.decode(drawn)
    depth = candidate.architecture.depth
    inactive = {a.name for a in space.dimensions if not is_active(space, a, drawn, depth)}
    mixed = {name: other[name] if name in inactive else value for name, value in drawn.items()}
    assert space.decode(mixed) == candidate
    assert space.decode(mixed).hash == candidate.hash


@given(case=draw_of_any_preset())
@settings(max_examples=150, deadline=None)
def test_drawn_settings_arrive(case: tuple[SearchSpace, dict[str, Value], dict[str, Value]]):
    space, drawn, _ = case
    candidate = space.decode(drawn)
    a = candidate.architecture
    assert (a.depth, a.width) == (drawn["architecture.depth"], drawn["architecture.width"])
    assert a.mlp_ratio == drawn["architecture.mlp_ratio"]
    if a.width % int(drawn["architecture.heads"]) == 0:
        assert a.heads == drawn["architecture.heads"]

    def per_block(field: str) -> list[Value]:
        return [drawn.get(f"{field}[{i}]", drawn.get(field, 0)) for i in range(1, a.depth + 1)]

    assert list(candidate.precision.weight_bits_per_block(a.depth)) == per_block("precision.weight_bits")
    assert list(candidate.precision.activation_bits_per_block(a.depth)) == per_block("precision.activation_bits")
    for field, kept, available in (
        ("sparsity.mlp_ratio", [w.mlp_units for w in candidate.widths], a.mlp_units),
        ("sparsity.heads_ratio", [w.heads for w in candidate.widths], a.heads),
    ):
        # presets prune eighths and quarters, which floats hold exactly
        assert list(kept) == [max(1, available - int(available * float(r))) for r in per_block(field)]
    if drawn["tokens.reducer"] == "none":
        assert candidate.tokens.reducer == "none"
    else:
        assert candidate.tokens.reducer in {drawn["tokens.reducer"], "none"}  # evit may keep all of few patches
    if candidate.tokens.reducer == "ppt":
        assert candidate.tokens.tau == drawn["tokens.tau"]
