"""Whole networks with token reducers, in float64, against loops in numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.golden import reference
from vitsearch.candidate import Architecture, Candidate
from vitsearch.compress import build_reducers
from vitsearch.compress.tokens.kernels import ats_scores, bipartite_matching, merge_tokens
from vitsearch.models import AttentionState, VisionTransformer, build_dense

PREFIXES: dict[str, dict[str, Any]] = {
    "cls": {},
    "cls+dist": {"distilled": True},
    "no cls": {"class_token": False, "pool": "avg"},
    "cls, avg": {"pool": "avg"},
}
SIZES = {"25 patches": (10, 2), "16 patches": (8, 2), "9 patches": (9, 3)}
DEPTH, HEADS, BATCH = 4, 3, 3


def architecture(size: tuple[int, int] = (10, 2), **changes: Any) -> Architecture:
    return Architecture.model_validate(
        {"image_size": size[0], "patch_size": size[1], "in_chans": 2, "num_classes": 5, "depth": DEPTH,
         "width": 12, "heads": HEADS, "mlp_ratio": 2.0, **changes}
    )  # fmt: skip


def network(a: Architecture) -> VisionTransformer:
    """Random weights in float64, large enough that attention is far from uniform and tokens differ."""
    torch.manual_seed(0)
    model = build_dense(a).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.35 * torch.randn_like(parameter))
    return model


def images(a: Architecture, count: int = BATCH) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, a.in_chans, a.image_size, a.image_size, generator=generator).double()


def compare(
    a: Architecture, rule: dict[str, Any], reduction: Callable[[], reference.Reduction], blocks: tuple[int, ...]
) -> None:
    model = network(a)
    candidate = Candidate.model_validate({"architecture": a, "tokens": {**rule, "blocks": blocks}})
    images_BCHW = images(a)
    with torch.no_grad():
        dense = model(images_BCHW).numpy()
        model.set_reducers(build_reducers(candidate))
        found = model(images_BCHW).numpy()
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    expected = np.stack([
        reference.forward(weights, image.numpy(), patch=a.patch_size, heads=a.heads, pool=a.pool,
                          reductions=dict.fromkeys(blocks, reduction()))[0]
        for image in images_BCHW
    ])  # fmt: skip
    assert np.abs(expected - dense).max() > 1e-2, "the reduction must matter for this test to mean anything"
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_reference_is_the_dense_network(prefix: str):
    a = architecture(**PREFIXES[prefix])
    model, images_BCHW = network(a), images(a)
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    for image in images_BCHW:
        expected, _ = reference.forward(weights, image.numpy(), patch=2, heads=HEADS, reductions={}, pool=a.pool)
        np.testing.assert_allclose(model(image[None])[0].detach().numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("blocks", [(1, 2, 3, 4), (2, 3), (1,)], ids=str)
def test_tome(size: str, prefix: str, blocks: tuple[int, ...]):
    a = architecture(SIZES[size], **PREFIXES[prefix])
    compare(a, {"reducer": "tome", "r": 3}, lambda: reference.tome(3), blocks)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_tome_at_its_limit(prefix: str):
    a = architecture((6, 2), **PREFIXES[prefix])  # 9 patches: 4, then 2, 1 and 1 merges
    compare(a, {"reducer": "tome", "r": 4}, lambda: reference.tome(4), (1, 2, 3, 4))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("prefix", ["cls", "cls+dist", "cls, avg"])
@pytest.mark.parametrize("keep", [0.7, 0.34])
@pytest.mark.parametrize("fuse", [True, False])
def test_evit(size: str, prefix: str, keep: float, fuse: bool):
    a = architecture(SIZES[size], **PREFIXES[prefix])
    rule = {"reducer": "evit", "keep": keep, "fuse": fuse}
    compare(a, rule, lambda: reference.evit(keep, fuse=fuse), (1, 2, 4))  # a fused token is ranked again later


def score_variances(a: Architecture, block: int) -> list[float]:
    found: list[float] = []

    def watch(seen: reference.Seen) -> tuple[np.ndarray, np.ndarray]:
        found.append(reference.unbiased_variance(reference.ats_scores(seen)))
        return seen.x, seen.size

    weights = {name: value.numpy() for name, value in network(a).state_dict().items()}
    for image in images(a):
        reference.forward(
            weights, image.numpy(), patch=a.patch_size, heads=HEADS, pool=a.pool, reductions={block: watch}
        )
    return sorted(found)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("prefix", ["cls", "cls+dist"])
def test_ppt_decides_image_by_image(size: str, prefix: str):
    a = architecture(SIZES[size], **PREFIXES[prefix])
    variances = score_variances(a, 1)
    tau = (variances[0] + variances[1]) / 2
    branches: list[bool] = []
    compare(a, {"reducer": "ppt", "r": 2, "tau": tau}, lambda: reference.ppt(2, tau, branches), (1, 2, 4))
    assert {True, False} <= set(branches[::3]), "some images prune and some merge at the first block"


@pytest.mark.parametrize("tau", [0.0, 1.0], ids=["prunes", "merges"])
def test_ppt_one_way(tau: float):
    a = architecture()
    compare(a, {"reducer": "ppt", "r": 5, "tau": tau}, lambda: reference.ppt(5, tau), (1, 2, 3))


def test_ppt_uses_the_unbiased_variance():
    a = architecture((6, 2))  # 9 patches: the biased variance is 8/9 of it
    variance = score_variances(a, 1)[0]
    tau = 0.95 * variance
    compare(a, {"reducer": "ppt", "r": 2, "tau": tau}, lambda: reference.ppt(2, tau), (1,))
    biased = [v * 8 / 9 for v in score_variances(a, 1)]
    assert min(biased) < tau, "the other variance would decide otherwise"


@pytest.mark.parametrize(("num_tokens", "prefix", "r"), [(8, 0, 4), (9, 1, 4), (10, 1, 3), (11, 2, 4), (12, 2, 5)])
def test_matching_and_merge(num_tokens: int, prefix: int, r: int):
    generator = np.random.default_rng(num_tokens)
    x = generator.normal(size=(2, num_tokens, 6))
    metric = generator.normal(size=(2, num_tokens, 4)) * generator.uniform(0.1, 9, size=(2, num_tokens, 1))
    size = generator.integers(1, 9, size=(2, num_tokens)).astype(float)
    matching = bipartite_matching(torch.tensor(metric), r, prefix)
    merged_BMD, merged_BM = merge_tokens(torch.tensor(x), torch.tensor(size), matching)
    for i in range(2):
        expected = reference.links(metric[i], r, prefix)
        pairs = zip(matching.merged_Br[i].tolist(), matching.target_Br[i].tolist(), strict=True)
        assert {(2 * a, 2 * b + 1) for a, b in pairs} == set(expected)
        seen = reference.Seen(x[i], size[i], metric[i][None], metric[i][None], metric[i][None], prefix)
        tokens, sizes = reference.tome(r)(seen)
        found = sorted([*row, s] for row, s in zip(merged_BMD[i].tolist(), merged_BM[i].tolist(), strict=True))
        np.testing.assert_allclose(found, sorted([*row, s] for row, s in zip(tokens, sizes, strict=True)))


def test_sizes_of_two_merges_in_a_row_weigh_the_third():
    """A token of two patches merges with one of one: the mean is (2 x + y) / 3, not (x + y) / 2."""
    metric = torch.tensor([[[9.0, 9.0], [1.0, 0.0], [1.0, 0.1], [-1.0, 5.0]]])
    x = torch.tensor([[[0.0], [3.0], [6.0], [100.0]]])
    size = torch.tensor([[1.0, 2.0, 1.0, 1.0]])
    merged, sizes = merge_tokens(x, size, bipartite_matching(metric, 1, 1))
    assert merged.flatten().tolist() == pytest.approx([0.0, (2 * 3 + 6) / 3, 100.0])
    assert sizes.flatten().tolist() == [1.0, 3.0, 1.0]


@pytest.mark.parametrize("prefix", [1, 2])
def test_ats_scores(prefix: int):
    generator = np.random.default_rng(prefix)
    q, k, v = generator.normal(size=(3, 2, 4, 9, 5))
    size = generator.integers(1, 5, size=(2, 9)).astype(float)
    bias = torch.tensor(np.log(size))[:, None, None, :]
    state = AttentionState(*map(torch.tensor, (q, k, v)), 1 / math.sqrt(5), bias)
    found = ats_scores(state.cls_attention_BHN(), state.v_BHNK, prefix)
    assert found.shape == (2, 9 - prefix)
    for i in range(2):
        expected = reference.ats_scores(reference.Seen(v[i, 0], size[i], q[i], k[i], v[i], prefix))
        np.testing.assert_allclose(found[i].numpy(), expected, rtol=1e-12)
    scaled = ats_scores(state.cls_attention_BHN(), 7 * state.v_BHNK, prefix)
    torch.testing.assert_close(scaled, found)
