"""Whole networks with token reducers, in float64, against loops in numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from tests.golden import reference
from vitsearch.candidate import LTMP, SCORES, Architecture, AViT, Candidate, DiffRateLearned, DynamicViT, PSViT
from vitsearch.compress import build_reducers, metered
from vitsearch.compress.tokens.avit import avit_losses
from vitsearch.compress.tokens.kernels import bipartite_matching, merge_tokens
from vitsearch.compress.tokens.learned import LearnedScoreReducer
from vitsearch.compress.tokens.ltmp import GAIN
from vitsearch.compress.tokens.ps_vit import fit_ps_vit
from vitsearch.compress.tokens.scores import SCORE_KERNELS
from vitsearch.compress.tokens.token_pooling import kmeans, kmedoids
from vitsearch.models import AttentionState, VisionTransformer, build_dense
from vitsearch.train.losses import Outputs

PREFIXES: dict[str, dict[str, Any]] = {
    "cls": {},
    "cls+dist": {"distilled": True},
    "cls+2 dist": {"distilled": True, "distillation_tokens": 2},
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


def install(model: VisionTransformer, candidate: Candidate, **values: float) -> None:
    """Set the reducers, in float64, with random weights where they learn, or with given ones."""
    torch.manual_seed(2)
    model.set_reducers(build_reducers(candidate))
    model.double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".reducer." in name:
                given = values.get(name.rpartition(".")[2])
                parameter.add_(torch.randn_like(parameter)) if given is None else parameter.fill_(given)


def compare(
    a: Architecture, rule: dict[str, Any], reduction: Callable[[], reference.Reduction], blocks: tuple[int, ...]
) -> None:
    """The same reduction after each of ``blocks``."""
    compare_each(a, {**rule, "blocks": blocks}, dict.fromkeys(blocks, reduction()))


def compare_each(a: Architecture, rule: dict[str, Any], reductions: dict[int, reference.Reduction]) -> None:
    model = network(a)
    candidate = Candidate.model_validate({"architecture": a, "tokens": rule})
    images_BCHW = images(a)
    with torch.no_grad():
        dense = model(images_BCHW).numpy()
        install(model, candidate)
        found = model(images_BCHW).numpy()
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    expected = np.stack([
        reference.forward(weights, image.numpy(), patch=a.patch_size, heads=a.heads, pool=a.pool,
                          reductions=reductions)[0]
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


def seen_at_random(num_tokens: int, prefix: int) -> tuple[torch.Tensor, AttentionState, list[reference.Seen]]:
    """Two images with sizes, as a kernel sees them and as the reference does."""
    generator = np.random.default_rng(prefix)
    x = generator.normal(size=(2, num_tokens, 20))
    q, k, v = generator.normal(size=(3, 2, 4, num_tokens, 5))
    size = generator.integers(1, 5, size=(2, num_tokens)).astype(float)
    bias = torch.tensor(np.log(size))[:, None, None, :]
    state = AttentionState(*map(torch.tensor, (q, k, v)), 1 / math.sqrt(5), bias)
    return torch.tensor(x), state, [reference.Seen(x[i], size[i], q[i], k[i], v[i], prefix) for i in range(2)]


@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize("num_tokens", [9, 12])
@pytest.mark.parametrize("name", SCORES)
def test_scores(name: str, prefix: int, num_tokens: int):
    if SCORES[name].needs_class_token and not prefix:
        return
    x_BND, state, seen = seen_at_random(num_tokens, prefix)
    if SCORES[name].learns:
        wrapped = LearnedScoreReducer(
            lambda _, state, __: (SCORE_KERNELS[name](_, state, prefix), None), 20, prefix
        )
        found = wrapped.double().eval()(x_BND, state, None)[0].detach()
        own = {name: value.numpy() for name, value in wrapped.state_dict().items()}
        seen = [replace(one, w=own) for one in seen]
    else:
        found = SCORE_KERNELS[name](x_BND, state, prefix)
    assert found.shape == (2, num_tokens - prefix)
    for i in range(2):
        np.testing.assert_allclose(found[i].numpy(), reference.SCORES[name](seen[i]), rtol=1e-12)


@pytest.mark.parametrize("name", ["ats", "entropy"])
def test_the_scale_of_v_does_not_matter_to_normalised_scores(name: str):
    x_BND, state, _ = seen_at_random(9, 1)
    scaled = SCORE_KERNELS[name](x_BND, replace(state, v_BHNK=7 * state.v_BHNK), 1)
    torch.testing.assert_close(scaled, SCORE_KERNELS[name](x_BND, state, 1))
    torch.testing.assert_close(scaled.sum(dim=1), torch.ones(2).double())


def test_the_table_of_scores_and_that_of_kernels_name_the_same():
    assert list(SCORES) == list(SCORE_KERNELS) == list(reference.SCORES)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_reducer_takes_every_score(prefix: str, score: str):
    a = architecture((9, 3), **PREFIXES[prefix])
    if SCORES[score].needs_class_token and not a.class_token:
        with pytest.raises(ValueError, match=f"needs a CLS token .* score={score}, .* choose score from"):
            Candidate.model_validate({"architecture": a, "tokens": {"reducer": "evit", "score": score}})
        return
    rule = {"reducer": "evit", "keep": 0.6, "score": score}
    compare(a, rule, lambda: reference.evit(0.6, score=score), (1, 3))
    compare(
        a, {"reducer": "ppt", "r": 2, "tau": 0.0, "score": score},
        lambda: reference.ppt(2, 0.0, score_name=score), (1, 3),
    )  # fmt: skip
    for rest in ("drop", "merge"):
        compare(
            a, {"reducer": "topk", "k": 5, "rest": rest, "score": score},
            lambda rest=rest: reference.topk(5, merge=rest == "merge", score=score), (2,),
        )  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("rest", ["drop", "merge"])
def test_topk_by_number_in_each_block(size: str, prefix: str, rest: str):
    """Sizes of the first merge bias the attention and weigh the second."""
    a = architecture(SIZES[size], **PREFIXES[prefix])
    compare_each(
        a, {"reducer": "topk", "k": (7, 4), "blocks": (1, 3), "rest": rest, "score": "entropy"},
        {b: reference.topk(k, merge=rest == "merge", score="entropy") for b, k in {1: 7, 3: 4}.items()},
    )  # fmt: skip


def test_a_rate_for_each_block():
    a = architecture()
    rates = {1: 6, 2: 0, 4: 3}
    compare_each(
        a, {"reducer": "tome", "r": tuple(rates.values()), "blocks": tuple(rates)},
        {block: reference.tome(r) for block, r in rates.items() if r},
    )  # fmt: skip
    compare_each(
        a, {"reducer": "ppt", "r": (6, 2), "tau": 0.0, "blocks": (1, 4)},
        {1: reference.ppt(6, 0.0), 4: reference.ppt(2, 0.0)},
    )  # fmt: skip
    compare_each(
        a, {"reducer": "evit", "keep": (0.8, 0.3), "blocks": (2, 3)},
        {2: reference.evit(0.8), 3: reference.evit(0.3)},
    )  # fmt: skip


def test_schedules_of_shares_of_and_of_numbers():
    a = architecture()
    compare_each(
        a, {"reducer": "evit", "keep": 0.7, "schedule": "decreasing", "blocks": (1, 2, 4)},
        {1: reference.evit(0.7**2), 2: reference.evit(0.7)},
    )  # fmt: skip
    compare_each(
        a, {"reducer": "ppt", "r": 4, "tau": 0.0, "schedule": "increasing", "blocks": (1, 2, 4)},
        {2: reference.ppt(4, 0.0), 4: reference.ppt(8, 0.0)},
    )  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_diffrate(size: str, prefix: str):
    a = architecture(SIZES[size], **PREFIXES[prefix])
    rates = {1: (2, 3), 2: (0, 2), 4: (1, 30)}
    prune, merge = zip(*rates.values(), strict=True)
    compare_each(
        a,
        {"reducer": "diffrate", "prune": prune, "merge": merge, "blocks": tuple(rates), "score": "entropy"},
        {block: reference.diffrate(*pair, score="entropy") for block, pair in rates.items()},
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("prefix", ["cls", "cls+dist", "cls, avg"])
@pytest.mark.parametrize("keep", [0.7, 0.34])
def test_tps_and_spvit(size: str, prefix: str, keep: float):
    a = architecture(SIZES[size], **PREFIXES[prefix])
    compare(a, {"reducer": "tps", "keep": keep}, lambda: reference.tps(keep), (1, 2, 4))
    compare(a, {"reducer": "spvit", "keep": keep}, lambda: reference.spvit(keep), (1, 2, 4))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("pool", ["avg", "max", "attention"])
@pytest.mark.parametrize(("grid", "blocks"), [(2, (1, 3)), (3, (2,))], ids=str)
def test_grid_pool(size: str, prefix: str, pool: str, grid: int, blocks: tuple[int, ...]):
    """5 x 5 windows of 2 become 3 x 3 and then 2 x 2, so that groups of unequal size are pooled again."""
    a = architecture(SIZES[size], **PREFIXES[prefix])
    rule = {"reducer": "grid_pool", "grid": grid, "pool": pool, "score": "magnitude"}
    compare(a, rule, lambda: reference.grid_pool(grid, pool, score="magnitude"), blocks)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("method", ["kmeans", "kmedoids"])
@pytest.mark.parametrize("iterations", [1, 4])
def test_token_pooling(size: str, prefix: str, method: str, iterations: int):
    a = architecture(SIZES[size], **PREFIXES[prefix])
    count = {1: 6, 2: 3}
    compare_each(
        a,
        {"reducer": "token_pooling", "k": (6, 3), "blocks": (1, 2), "method": method, "iterations": iterations},
        {b: reference.token_pooling(k, method, iterations, score="attention_received") for b, k in count.items()},
    )


def test_a_cluster_that_loses_every_token_keeps_its_centre():
    """Of two equal tokens the first takes both; the weighted centre of the second stays where it was."""
    x_BPD = torch.tensor([[[0.0, 0.0], [0.0, 0.0], [4.0, 0.0], [5.0, 0.0]]])
    weight_BP = torch.tensor([[1.0, 1.0, 1.0, 3.0]])
    first_BK = torch.tensor([[0, 1, 3]])
    assert kmeans(x_BPD, weight_BP, first_BK, 3).tolist() == [[[0.0, 0.0], [0.0, 0.0], [4.75, 0.0]]]
    assert kmedoids(x_BPD, weight_BP, first_BK, 3).tolist() == [[[0.0, 0.0], [0.0, 0.0], [5.0, 0.0]]]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("prefix", ["cls", "cls+dist", "cls, avg"])
@pytest.mark.parametrize(("keep", "blocks"), [(0.5, (2, 3, 4)), (0.3, (2, 4)), (0.01, (3,))], ids=str)
def test_evo(size: str, prefix: str, keep: float, blocks: tuple[int, ...]):
    a = architecture(SIZES[size], **PREFIXES[prefix])
    model, images_BCHW = network(a), images(a)
    rule = {"reducer": "evo", "keep": keep, "blocks": blocks}
    with torch.no_grad():
        dense = model(images_BCHW).numpy()
        model.set_reducers(build_reducers(Candidate.model_validate({"architecture": a, "tokens": rule})))
        found = model(images_BCHW).numpy()
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    expected = np.stack([
        reference.forward_evo(
            weights, image.numpy(), patch=a.patch_size, heads=HEADS, keep=keep, blocks=blocks, pool=a.pool
        )
        for image in images_BCHW
    ])  # fmt: skip
    assert np.abs(expected - dense).max() > 1e-2
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def counts_of_images(a: Architecture, rule: dict[str, Any]) -> set[int]:
    """How many tokens the images of a batch end with."""
    model = network(a)
    install(model, Candidate.model_validate({"architecture": a, "tokens": rule}))
    size_BN = model.run_blocks(images(a)).size_BN
    assert size_BN is not None
    return set((size_BN > 0).sum(dim=1).tolist())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("rest", ["drop", "merge"])
def test_threshold(size: str, prefix: str, rest: str):
    """Thresholds near the mean score, so that each image of the batch keeps a number of its own."""
    a = architecture(SIZES[size], **PREFIXES[prefix])
    mean = HEADS * 0.9  # every row of attention sums to one, and some falls on prefix tokens
    rule = {"reducer": "threshold", "tau": (mean, 0.8 * mean), "blocks": (1, 3), "rest": rest,
            "score": "attention_received"}  # fmt: skip
    assert len(counts_of_images(a, rule)) > 1 or size == "9 patches"
    compare_each(
        a, rule,
        {b: reference.threshold(t, merge=rest == "merge", score="attention_received")
         for b, t in {1: mean, 3: 0.8 * mean}.items()},
    )  # fmt: skip


@pytest.mark.parametrize("score", SCORES)
def test_threshold_with_every_score(score: str):
    """Images of different lengths in one batch: empty places must count in no score."""
    a = architecture((9, 3))
    mean = {"attention_received": HEADS, "magnitude": 6.0}.get(score, 1 / 10)
    rule = {"reducer": "threshold", "tau": mean, "score": score}
    compare(a, rule, lambda: reference.threshold(mean, merge=False, score=score), (1, 2, 4))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("prefix", ["cls", "cls+dist", "cls, avg"])
@pytest.mark.parametrize("samples", [(25, 9), (40, 16)], ids=str)
def test_ats(size: str, prefix: str, samples: tuple[int, int]):
    a = architecture(SIZES[size], **PREFIXES[prefix])
    rule = {"reducer": "ats", "samples": samples, "blocks": (1, 2)}
    compare_each(a, rule, {block: reference.ats(n) for block, n in zip((1, 2), samples, strict=True)})


def test_ats_keeps_another_number_for_each_image():
    assert len(counts_of_images(architecture(), {"reducer": "ats", "samples": 16, "blocks": (1, 2)})) > 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("pool", ["avg", "first"])
def test_similarity_pool(size: str, prefix: str, pool: str):
    a = architecture(SIZES[size], **PREFIXES[prefix])
    taus = {1: 0.6, 2: 0.9}
    rule = {"reducer": "similarity_pool", "cosine": tuple(taus.values()), "blocks": tuple(taus), "pool": pool,
            "score": "attention_received"}  # fmt: skip
    assert len(counts_of_images(a, rule)) > 1 or size == "9 patches"
    compare_each(
        a, rule, {b: reference.similarity_pool(t, pool, score="attention_received") for b, t in taus.items()}
    )


def weights_of(model: VisionTransformer) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("prefix", PREFIXES)
@torch.no_grad()
def test_dynamicvit(size: str, prefix: str):
    """Two stages; the predictor of the second sees what the first has kept."""
    a = architecture(SIZES[size], **PREFIXES[prefix])
    model, images_BCHW = network(a), images(a)
    dense = model(images_BCHW)
    install(model, Candidate(architecture=a, tokens=DynamicViT(keep=(0.7, 0.5), blocks=(1, 3))))
    first = math.ceil(0.7 * a.num_patches)
    kept = {1: first, 3: math.ceil(0.5 * first)}
    expected = np.stack([
        reference.forward_dynamicvit(
            weights_of(model), image.numpy(), patch=a.patch_size, heads=a.heads, kept=kept, pool=a.pool
        )[0]
        for image in images_BCHW
    ])  # fmt: skip
    assert np.abs(expected - dense.numpy()).max() > 1e-2
    np.testing.assert_allclose(model(images_BCHW).numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("prefix", [prefix for prefix in PREFIXES if prefix not in {"no cls", "cls, avg"}])
def test_dynamicvit_in_training(size: str, prefix: str):
    """Choices are the larger of log-probability and Gumbel noise; what is dropped is as if it were gone."""
    a = architecture(SIZES[size], **PREFIXES[prefix])
    model, images_BCHW = network(a), images(a)
    install(model, Candidate(architecture=a, tokens=DynamicViT(keep=(0.7, 0.5), blocks=(1, 3))))
    routes = {number: model.blocks[number - 1].reducer for number in (1, 3)}
    with torch.no_grad():
        for route in routes.values():
            route.choice[-1].weight.mul_(0.1)  # chances near even
            route.choice[-1].bias.zero_()
        for block in model.blocks:
            block.attn.qkv.weight.mul_(0.6)  # a millionth of a large exponential would be seen
    model.train()
    torch.manual_seed(5)
    found = model(images_BCHW).detach().numpy()
    policies = {number: route.policy_BP.detach().numpy() for number, route in routes.items()}
    assert all(0 < policy.mean() < 1 for policy in policies.values())
    torch.manual_seed(5)
    noise = [-torch.empty(BATCH, a.num_patches, 2).exponential_().log().numpy() for _ in policies]
    for i, image in enumerate(images_BCHW):
        kept = {number: policy[i] > 0 for number, policy in policies.items()}
        expected, asked = reference.forward_dynamicvit(
            weights_of(model), image.numpy(), patch=a.patch_size, heads=a.heads, kept=kept, pool=a.pool
        )
        np.testing.assert_allclose(found[i], expected, atol=1e-4)  # a dropped key weighs a millionth
        for (left, logs), gumbel, which in zip(asked, noise, kept.values(), strict=True):
            assert which[left].tolist() == (np.argmax(logs + gumbel[i, left], axis=1) == 0).tolist()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("blocks", [(2,), (1, 2, 4)])
def test_thresholds_of_ltmp_learn_in_the_network_that_is_evaluated(
    size: str, prefix: str, blocks: tuple[int, ...]
):
    a = architecture(SIZES[size], **PREFIXES[prefix])
    model, images_BCHW = network(a), images(a)
    rule = LTMP(target=0.5, blocks=blocks)
    install(model, Candidate(architecture=a, tokens=rule), merge=0.3 / GAIN, drop=0.8 / GAIN)
    evaluated = model.run_blocks(images_BCHW)
    trained = model.train().run_blocks(images_BCHW)
    assert evaluated.size_BN is not None
    assert trained.size_BN is not None
    assert trained.size_BN.requires_grad
    left = (evaluated.size_BN > 0).sum(dim=1)
    assert left.max() < a.num_tokens
    assert (trained.size_BN > 0).sum(dim=1).tolist() == left.tolist()
    for i, count in enumerate(left.tolist()):  # where sizes learn, an empty place weighs a millionth
        torch.testing.assert_close(trained.x_BND[i, :count], evaluated.x_BND[i, :count], rtol=0.01, atol=0.01)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("prefix", PREFIXES)
@torch.no_grad()
def test_ltmp(size: str, prefix: str):
    a = architecture(SIZES[size], **PREFIXES[prefix])
    model, images_BCHW = network(a), images(a)
    dense = model(images_BCHW)
    install(
        model, Candidate(architecture=a, tokens=LTMP(target=0.5, blocks=(1, 2))), merge=0.3 / GAIN, drop=0.8 / GAIN
    )
    expected = np.stack([
        reference.forward(
            weights_of(model), image.numpy(), patch=a.patch_size, heads=a.heads, pool=a.pool,
            reductions=dict.fromkeys((1, 2), reference.ltmp(0.7, 0.8)),
        )[0]
        for image in images_BCHW
    ])  # fmt: skip
    assert np.abs(expected - dense.numpy()).max() > 1e-2
    size_BN = model.run_blocks(images_BCHW).size_BN
    assert size_BN is not None
    assert len(set((size_BN > 0).sum(dim=1).tolist())) > 1 or size == "9 patches"
    np.testing.assert_allclose(model(images_BCHW).numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("prefix", ["cls", "cls+dist"])
@pytest.mark.parametrize("eps", [0.01, 0.3])
@torch.no_grad()
def test_avit(size: str, prefix: str, eps: float):
    """Logits, tokens of every block and the ponder loss; tokens halt in different blocks."""
    a = architecture(SIZES[size], **PREFIXES[prefix])
    model, images_BCHW = network(a), images(a)
    rule = AViT(gamma=1.0, beta=0.5, eps=eps, ponder=0.25)
    install(model, Candidate(architecture=a, tokens=rule))
    found = [
        reference.forward_avit(
            weights_of(model), image.numpy(), patch=a.patch_size, heads=a.heads, gamma=1.0, beta=0.5, eps=eps
        )
        for image in images_BCHW
    ]
    assert len({tuple(counts) for _, counts, _ in found}) > 1
    with metered(model) as meter:
        logits_BK = model(images_BCHW)
    np.testing.assert_allclose(logits_BK.numpy(), np.stack([one for one, _, _ in found]), rtol=1e-9, atol=1e-9)
    per_block, _ = meter.per_block(a.num_tokens, a.depth)
    assert np.stack([attention for attention, _ in per_block]).T.tolist() == [counts for _, counts, _ in found]
    with avit_losses(model, rule, model) as (term,):
        outputs, batch = Outputs(cls_BK=model(images_BCHW)), None
        expected = 0.25 * np.mean([ponder for _, _, ponder in found]) / a.num_tokens
        assert float(term(outputs, batch)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("prefix", ["cls", "cls+dist", "cls, avg"])
def test_iared(size: str, prefix: str):
    a = architecture(SIZES[size], **PREFIXES[prefix])
    compare(a, {"reducer": "iared", "below": 0.5}, lambda: reference.iared(0.5), (1, 2))
    assert len(counts_of_images(a, {"reducer": "iared", "below": 0.5, "blocks": (1, 2)})) > 1


@pytest.mark.parametrize("prefix", ["cls", "cls+dist"])
@pytest.mark.parametrize("epsilon", [0.001, 0.01, 0.1])
@torch.no_grad()
def test_the_places_of_patch_slimming(prefix: str, epsilon: float):
    a = architecture((10, 2), **PREFIXES[prefix])
    model, images_BCHW = network(a), images(a, 4)
    weights = weights_of(model)
    rule = PSViT(epsilon=epsilon)
    model.set_reducers(build_reducers(Candidate(architecture=a, tokens=rule)))
    fit_ps_vit(model, rule, images_BCHW)
    expected = reference.ps_vit_places(
        weights, [image.numpy() for image in images_BCHW], patch=2, heads=HEADS, epsilon=epsilon
    )
    found = [block.reducer.keeps_P.nonzero().flatten().tolist() for block in model.blocks]
    assert found == expected
    assert all(set(upper) <= set(lower) for lower, upper in pairwise(found)), "nested"
    assert len(found[0]) > len(found[-1]) == 1


@torch.no_grad()
def test_patch_slimming_in_some_blocks_keeps_what_the_blocks_above_need():
    a = architecture()
    model, images_BCHW = network(a), images(a)
    every, some = PSViT(epsilon=0.01), PSViT(epsilon=0.01, blocks=(2, 4))
    places = {}
    for rule in (every, some):
        model.set_reducers(build_reducers(Candidate(architecture=a, tokens=rule)))
        fit_ps_vit(model, rule, images_BCHW)
        places[rule] = {n: b.reducer.keeps_P.tolist() for n, b in enumerate(model.blocks, 1) if b.reducer}
    assert places[some] == {n: places[every][n] for n in (2, 4)}
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    chosen = {n: [i for i, keeps in enumerate(kept) if keeps] for n, kept in places[some].items()}

    def only(stay: list[int], of: list[int]) -> reference.Reduction:
        rows = [0, *(1 + of.index(i) for i in stay)]
        return lambda seen: (seen.x[rows], seen.size[rows])

    reductions = {2: only(chosen[2], list(range(25))), 4: only(chosen[4], chosen[2])}
    for image in images_BCHW:
        expected, _ = reference.forward(weights, image.numpy(), patch=2, heads=HEADS, reductions=reductions)
        np.testing.assert_allclose(model(image[None])[0].numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("prefix", PREFIXES)
@torch.no_grad()
def test_learned_rates_do_what_given_ones_do(size: str, prefix: str):
    """Logits whose softmax has its mean at 2 and at 3: the reducer of those rates."""
    a = architecture(SIZES[size], **PREFIXES[prefix])
    model, images_BCHW = network(a), images(a)
    rule = DiffRateLearned(target=0.5, blocks=(1, 3), score="entropy")
    model.set_reducers(build_reducers(Candidate(architecture=a, tokens=rule)))
    model.double()
    for block in (model.blocks[0], model.blocks[2]):
        for logits_C, rate in ((block.reducer.prune_C, 2), (block.reducer.merge_C, 3)):
            logits_C.copy_(-((torch.arange(len(logits_C)) - rate).double() ** 2) / GAIN)
    model.eval()
    assert [block.reducer.rates for block in (model.blocks[0], model.blocks[2])] == [(2, 3)] * 2
    reductions = dict.fromkeys((1, 3), reference.diffrate(2, 3, score="entropy"))
    for image in images_BCHW:
        expected, _ = reference.forward(
            weights_of(model), image.numpy(), patch=a.patch_size, heads=a.heads, pool=a.pool, reductions=reductions
        )
        np.testing.assert_allclose(model(image[None])[0].numpy(), expected, rtol=1e-9, atol=1e-9)
