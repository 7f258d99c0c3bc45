"""What every token reducer promises, whatever its rule.

A reducer added to ``REDUCERS`` fails here until it has a line in ``RULES`` and in ``IDENTITY``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.unit.compress.factory import network as dense_network
from vitsearch.candidate import Candidate
from vitsearch.compress import REDUCERS, assemble, build_reducers
from vitsearch.cost import cost_of
from vitsearch.models import AttentionState, TokenReducer, VisionTransformer, build_dense
from vitsearch.profile import count_macs
from vitsearch.space import SearchSpace, load_preset
from vitsearch.testing import random_candidates

RULES: dict[str, list[dict[str, Any]]] = {
    "none": [{}],
    "tome": [
        {"r": 3},
        {"r": 4, "schedule": "decreasing"},
        {"r": 4, "schedule": "increasing"},
        {"r": 12},
        {"r": 2, "blocks": (2, 4)},
    ],
    "evit": [{"keep": 0.7}, {"keep": 0.5, "fuse": False}, {"keep": 0.1, "blocks": (1, 2, 3, 4)}],
    "ppt": [{"r": 5, "tau": 0.0}, {"r": 5, "tau": 1.0}, {"r": 12, "blocks": (1, 4)}],
}
IDENTITY: dict[str, dict[str, Any]] = {
    "none": {}, "tome": {"r": 0}, "evit": {"keep": 1.0}, "ppt": {"r": 0},
}  # fmt: skip
SCORED = {"evit": {"keep": 0.6}, "ppt": {"r": 4, "tau": 0.0}}  # decide by scores alone, never by position
WITHOUT_CLS = {"none", "tome"}
EXPORTED_ALWAYS = {("none", "no cls"), ("tome", "cls+dist"), ("evit", "cls"), ("ppt", "cls")}

CASES = [pytest.param(name, rule, id=f"{name} {rule}") for name, rules in RULES.items() for rule in rules]
PREFIXES: dict[str, dict[str, Any]] = {
    "cls": {},
    "cls+dist": {"distilled": True},
    "no cls": {"class_token": False, "pool": "avg"},
}
CASES_AND_PREFIXES = [
    pytest.param(name, rule, prefix, id=f"{name} {rule} {prefix}")
    for name, rules in RULES.items()
    for rule in rules
    for prefix in PREFIXES
    if prefix != "no cls" or name in WITHOUT_CLS
]


def candidate(name: str, rule: dict[str, Any], prefix: str = "cls", **parts: Any) -> Candidate:
    architecture = {
        "image_size": 10, "in_chans": 1, "num_classes": 5, "patch_size": 2, "depth": 4, "width": 24, "heads": 3,
        "mlp_ratio": 2.0, **PREFIXES[prefix],
    }  # fmt: skip
    return Candidate.model_validate({"architecture": architecture, "tokens": {"reducer": name, **rule}, **parts})


def network(c: Candidate) -> VisionTransformer:
    model = dense_network(c)
    model.set_reducers(build_reducers(c))
    return model


def images(batch: int = 3) -> Tensor:
    return torch.randn(batch, 1, 10, 10, generator=torch.Generator().manual_seed(batch))


def token_counts(model: VisionTransformer, images_BCHW: Tensor) -> list[int]:
    """Tokens entering each block, and leaving the last."""
    found: list[int] = []

    def entering(_: nn.Module, args: tuple[Any, ...]) -> None:
        found.append(args[0].shape[1])

    def leaving(_: nn.Module, __: tuple[Any, ...], output: tuple[Tensor, Tensor | None]) -> None:
        found.append(output[0].shape[1])

    handles = [block.register_forward_pre_hook(entering) for block in model.blocks]
    handles.append(model.blocks[-1].register_forward_hook(leaving))
    model(images_BCHW)
    for handle in handles:
        handle.remove()
    return found


class Watched:
    """A reducer that remembers what went in and out."""

    def __init__(self, inner: TokenReducer) -> None:
        self.inner = inner
        self.seen: list[tuple[Tensor, Tensor | None, Tensor, Tensor | None]] = []

    def __call__(
        self, x_BND: Tensor, attention: AttentionState, size_BN: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        out_BMD, out_BM = self.inner(x_BND, attention, size_BN)
        self.seen.append((x_BND, size_BN, out_BMD, out_BM))
        return out_BMD, out_BM


@torch.no_grad()
def watched(c: Candidate) -> Iterator[tuple[Tensor, Tensor | None, Tensor, Tensor | None]]:
    model = network(c)
    reducers = {block: Watched(reducer) for block, reducer in build_reducers(c).items()}
    model.set_reducers(reducers)
    model(images())
    for reducer in reducers.values():
        assert len(reducer.seen) == 1
        yield reducer.seen[0]


def test_every_reducer_is_listed_here():
    assert set(RULES) == set(IDENTITY) == set(REDUCERS)


@pytest.mark.parametrize(("name", "rule", "prefix"), CASES_AND_PREFIXES)
@torch.no_grad()
def test_a_running_network_has_the_tokens_its_rule_counts(name: str, rule: dict[str, Any], prefix: str):
    c = candidate(name, rule, prefix)
    counts = c.tokens.token_counts(c.architecture)
    assert (counts[-1] < counts[0]) == (name != "none")
    assert token_counts(network(c), images()) == counts
    assert token_counts(network(c), images(1)) == counts


@pytest.mark.parametrize(
    ("name", "prefix"), [(n, p) for n in IDENTITY for p in PREFIXES if p != "no cls" or n in WITHOUT_CLS]
)
@torch.no_grad()
def test_the_identity_setting_is_the_dense_network_bit_for_bit(name: str, prefix: str):
    c = candidate(name, IDENTITY[name], prefix)
    dense = candidate("none", {}, prefix)
    assert torch.equal(network(c)(images()), network(dense)(images()))
    assert c.canonical() == dense.canonical()
    assert c.hash == dense.hash


@pytest.mark.parametrize(("name", "rule", "prefix"), CASES_AND_PREFIXES)
def test_prefix_tokens_stay_first_and_unchanged(name: str, rule: dict[str, Any], prefix: str):
    c = candidate(name, rule, prefix)
    p = c.architecture.num_prefix_tokens
    for x_BND, _, out_BMD, out_BM in watched(c):
        torch.testing.assert_close(out_BMD[:, :p], x_BND[:, :p], rtol=0, atol=0)
        if out_BM is not None:
            assert (out_BM[:, :p] == 1).all()


@pytest.mark.parametrize(("name", "rule", "prefix"), CASES_AND_PREFIXES)
def test_sizes_account_for_every_token(name: str, rule: dict[str, Any], prefix: str):
    """What leaves is what came less what was dropped: whole tokens, each of the size it had."""
    c = candidate(name, rule, prefix)
    for x_BND, size_BN, out_BMD, out_BM in watched(c):
        if out_BM is None:  # not tracked: every token counts as one
            assert name == "evit"
            continue
        assert out_BM.shape == out_BMD.shape[:2]
        before_BN = torch.ones(x_BND.shape[:2]) if size_BN is None else size_BN
        for image in range(len(x_BND)):
            dropped = _dropped_mass(x_BND[image], before_BN[image], out_BMD[image], out_BM[image])
            assert out_BM[image].sum().item() == pytest.approx(before_BN[image].sum().item() - dropped)
            if name == "tome" or rule.get("tau") == 1.0:
                assert dropped == 0
            if rule.get("tau") == 0.0:
                assert dropped > 0


def _dropped_mass(x_ND: Tensor, size_N: Tensor, out_MD: Tensor, out_M: Tensor) -> float:
    """Mass of tokens of one image that no output contains, judged by the features.

    An image either drops (every output token is an input token) or merges (the first moment is conserved).
    """
    is_input_M = (out_MD[:, None] == x_ND[None]).all(-1).any(-1)
    if is_input_M.all() and set(out_M.tolist()) <= set(size_N.tolist()):
        survives_N = (x_ND[:, None] == out_MD[None]).all(-1).any(-1)
        return float(size_N[~survives_N].sum())
    moment_before, moment_after = (size_N[:, None] * x_ND).sum(0), (out_M[:, None] * out_MD).sum(0)
    torch.testing.assert_close(moment_after, moment_before, rtol=1e-4, atol=1e-4)
    return 0.0


@pytest.mark.parametrize("name", SCORED)
@torch.no_grad()
def test_a_rule_that_goes_by_scores_does_not_see_the_order_of_patches(name: str):
    c = candidate(name, SCORED[name])
    model = network(c).double()
    model.pos_embed.zero_()
    images_BCHW = images().double()
    order = torch.randperm(25, generator=torch.Generator().manual_seed(0))
    patches = images_BCHW.reshape(3, 5, 2, 5, 2).permute(0, 1, 3, 2, 4).reshape(3, 25, 2, 2)[:, order]
    shuffled = patches.reshape(3, 5, 5, 2, 2).permute(0, 1, 3, 2, 4).reshape(3, 1, 10, 10)
    assert not torch.equal(shuffled, images_BCHW)
    torch.testing.assert_close(model(shuffled), model(images_BCHW), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "rule"), CASES)
@torch.no_grad()
def test_an_image_does_not_depend_on_its_batch(name: str, rule: dict[str, Any]):
    model = network(candidate(name, rule)).double()
    batch = images(4).double()
    torch.testing.assert_close(model(batch)[2:3], model(batch[2:3]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "rule"), CASES)
@torch.no_grad()
def test_bf16_autocast(name: str, rule: dict[str, Any]):
    c = candidate(name, rule)
    model = network(c)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert token_counts(model, images()) == c.tokens.token_counts(c.architecture)
        logits = model(images())
    assert logits.isfinite().all()
    assert logits.shape == (3, 5)


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize(("name", "rule"), CASES)
def test_training_backpropagates_through_it(name: str, rule: dict[str, Any], autocast: bool):
    torch.manual_seed(0)
    c = candidate(name, rule)
    model = build_dense(c.architecture, drop_path=0.1, dropout=0.1).train()
    model.set_reducers(build_reducers(c))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = nn.functional.cross_entropy(model(images(4)).float(), torch.tensor([0, 1, 2, 3]))
    loss.backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
    assert model.patch_embed.proj.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "rule", "prefix"),
    [
        pytest.param(
            *case.values,
            id=case.id,
            marks=()
            if (case.values[0], case.values[2]) in EXPORTED_ALWAYS and case.values[1] == RULES[case.values[0]][0]
            else pytest.mark.slow,
        )
        for case in CASES_AND_PREFIXES
    ],
)
@torch.no_grad()
def test_export_at_another_batch_size(name: str, rule: dict[str, Any], prefix: str):
    model = network(candidate(name, rule, prefix))
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(model, (images(2),), dynamic_shapes=({0: batch},)).module()
    for size in (1, 2, 5):
        torch.testing.assert_close(program(images(size)), model(images(size)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "rule", "prefix"), CASES_AND_PREFIXES)
@torch.no_grad()
def test_its_cost_is_counted(name: str, rule: dict[str, Any], prefix: str):
    c = candidate(name, rule, prefix)
    assert count_macs(assemble(c), images(2)) == cost_of(c).num_macs


def drawn(preset: str, count: int) -> list[Candidate]:
    space = SearchSpace(load_preset(preset), in_chans=3, num_classes=10)
    return list(random_candidates(space, count, seed=count))


@pytest.mark.parametrize(("preset", "count"), [("vit_micro_8", 60), ("vit_tiny_32", 20)])
@torch.no_grad()
def test_random_candidates_have_the_parameters_and_tokens_of_their_closed_form(preset: str, count: int):
    candidates = drawn(preset, count)
    assert {c.tokens.reducer for c in candidates} == set(REDUCERS)
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
def test_random_candidates_have_the_macs_of_their_closed_form(preset: str, count: int):
    candidates = drawn(preset, count)
    assert any(c.sparsity.method != "none" and not c.precision.is_float32 for c in candidates)
    for c in candidates:
        a = c.architecture
        batch = torch.zeros(2, a.in_chans, a.image_size, a.image_size)
        assert count_macs(assemble(c), batch) == cost_of(c).num_macs, c.summary()
