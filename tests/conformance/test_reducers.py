"""What every token reducer promises, whatever its rule; a line in the two tables brings a new one in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from vitsearch.candidate import PPT, TOKEN_RULES, Architecture, Candidate, GridPool, TokenRule, ToMe
from vitsearch.compress import REDUCERS, assemble, build_reducers
from vitsearch.cost import cost_of
from vitsearch.models import AttentionState
from vitsearch.onnx import OnnxModel, export_onnx
from vitsearch.profile.macs import count_macs
from vitsearch.space import SearchSpace, load_preset
from vitsearch.testing import random_candidates
from vitsearch.testing.reducers import (
    REDUCER_CHECKS,
    architectures,
    check_export,
    check_identity,
    dropped_mass,
    random_network,
    token_counts,
)

CASES = [
    pytest.param(
        rule, architecture, id=f"{name} {rule.model_dump(exclude={'reducer'}, exclude_unset=True)} {prefix}"
    )
    for name, kind in TOKEN_RULES.items()
    for rule in kind.examples()
    for prefix, architecture in architectures(rule).items()
]


def always_exported(rule: TokenRule, architecture: Architecture) -> bool:
    """The most ordinary setting, with the fewest prefix tokens that the rule admits."""
    fewest = "cls" if rule.needs_class_token else "no cls"
    return rule == rule.examples()[0] and architecture == architectures(rule)[fewest]


def test_every_rule_has_a_kernel() -> None:
    assert set(TOKEN_RULES) == set(REDUCERS)


def often(rule: TokenRule, architecture: Architecture) -> bool:
    """The most ordinary setting with every prefix, and the others with the fewest prefix tokens they admit."""
    fewest = "cls" if rule.needs_class_token else "no cls"
    return rule == rule.examples()[0] or architecture == architectures(rule)[fewest]


@pytest.mark.parametrize(
    ("rule", "architecture"),
    [
        pytest.param(*case.values, id=case.id, marks=() if often(*case.values) else pytest.mark.slow)
        for case in CASES
    ],
)
@pytest.mark.parametrize("check", REDUCER_CHECKS, ids=lambda check: check.__name__)
def test_a_promise(
    check: Callable[[TokenRule, Architecture], None], rule: TokenRule, architecture: Architecture
) -> None:
    check(rule, architecture)


@pytest.mark.parametrize(
    ("rule", "architecture"),
    [(kind, one) for kind in TOKEN_RULES.values() for one in architectures(kind.identity()).values()],
)
def test_the_identity_setting_changes_nothing(rule: type[TokenRule], architecture: Architecture) -> None:
    check_identity(rule, architecture)


@pytest.mark.parametrize(
    ("rule", "architecture"),
    [
        pytest.param(*case.values, id=case.id, marks=() if always_exported(*case.values) else pytest.mark.slow)
        for case in CASES
    ],
)
def test_export_at_another_batch_size(rule: TokenRule, architecture: Architecture) -> None:
    check_export(rule, architecture)


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param(rule, id=repr(rule), marks=() if rule == GridPool.examples()[1] else pytest.mark.slow)
        for kind in TOKEN_RULES.values()
        for rule in kind.examples()
    ],
)
@torch.no_grad()
def test_an_onnx_file_gives_the_same_logits(rule: TokenRule, tmp_path: Path) -> None:
    architecture = architectures(rule)["cls"]
    model = random_network(Candidate(architecture=architecture, tokens=rule))
    export_onnx(model, tmp_path / "model.onnx", in_chans=1, image_size=architecture.image_size)
    onnx = OnnxModel(tmp_path / "model.onnx")
    for batch in (1, 5):
        images_BCHW = torch.randn(batch, 1, 10, 10, generator=torch.Generator().manual_seed(batch))
        np.testing.assert_allclose(onnx(images_BCHW.numpy()), model(images_BCHW).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("rule", "drops"), [(ToMe(r=3), False), (PPT(r=5, tau=1.0), False), (PPT(r=5, tau=0.0), True)], ids=repr
)
@torch.no_grad()
def test_merging_drops_nothing_and_pruning_does(rule: TokenRule, drops: bool) -> None:
    architecture = architectures(rule)["cls"]
    reducers = build_reducers(Candidate(architecture=architecture, tokens=rule))
    x_BND = torch.randn(2, 26, 24, generator=torch.Generator().manual_seed(0))
    state = AttentionState(*torch.randn(3, 2, 3, 26, 8, generator=torch.Generator().manual_seed(1)), 8**-0.5, None)
    out_BMD, out_BM = next(iter(reducers.values()))(x_BND, state, None)
    assert out_BM is not None
    for image in range(2):
        assert (dropped_mass(x_BND[image], torch.ones(26), out_BMD[image], out_BM[image]) > 0) == drops


def drawn(preset: str, count: int) -> list[Candidate]:
    space = SearchSpace(load_preset(preset), in_chans=3, num_classes=10)
    return list(random_candidates(space, count, seed=count))


@pytest.mark.parametrize(("preset", "count"), [("vit_micro_8", 60), ("vit_tiny_32", 20)])
@torch.no_grad()
def test_random_candidates_have_the_parameters_and_tokens_of_their_closed_form(preset: str, count: int) -> None:
    candidates = drawn(preset, count)
    assert len({c.tokens.reducer for c in candidates}) > 3
    for c in candidates:
        a, model, cost = c.architecture, assemble(c), cost_of(c)
        assert sum(p.numel() for p in model.parameters()) == cost.num_params, c.summary()
        batch = torch.zeros(2, a.in_chans, a.image_size, a.image_size)
        assert token_counts(model, batch) == list(cost.tokens), c.summary()


@pytest.mark.parametrize(
    ("preset", "count"),
    [
        ("vit_micro_8", 12),
        ("vit_tiny_32", 4),
        pytest.param("vit_micro_8", 100, marks=pytest.mark.slow),
        pytest.param("vit_tiny_32", 60, marks=pytest.mark.slow),
        pytest.param("vit_small_64", 10, marks=pytest.mark.slow),
        pytest.param("deit_224", 3, marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_random_candidates_have_the_macs_of_their_closed_form(preset: str, count: int) -> None:
    candidates = drawn(preset, count)
    assert any(c.sparsity.method != "none" and not c.precision.is_float32 for c in candidates)
    for c in candidates:
        a = c.architecture
        batch = torch.zeros(2, a.in_chans, a.image_size, a.image_size)
        assert count_macs(assemble(c), batch) == cost_of(c).num_macs, c.summary()
