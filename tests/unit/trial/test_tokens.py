"""Candidates whose tokens the image decides, or a reducer that learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.train.factory import CPU
from tests.unit.trial.factory import context, on_digits, wanted
from tests.unit.trial.test_run import succeeded
from vitsearch.cost import cost_of
from vitsearch.messages import TrialResult
from vitsearch.models import VisionTransformer
from vitsearch.profile.macs import count_macs
from vitsearch.train.evaluate import normalized_batches
from vitsearch.train.tensors import TensorData
from vitsearch.trial import load_model, run_trial

BITS = {"weight_bits": 8, "activation_bits": 8}
PRUNED = {"method": "magnitude", "mlp_units": 20, "width": 24}


def macs_one_by_one(model: VisionTransformer, digits: TensorData, count: int) -> list[int]:
    """What fvcore counts for each of the first validation images alone."""
    indices = digits.source.val[:count]
    return [count_macs(model, images) for images, _ in normalized_batches(digits, indices, 1)]


SEEN: list[dict[str, Any]] = [
    {"reducer": "threshold", "tau": 0.06, "score": "cls_attention"},
    {"reducer": "threshold", "tau": 0.06, "rest": "merge", "score": "learned"},
    {"reducer": "ats", "samples": 12},
    {"reducer": "similarity_pool", "cosine": 0.8},
    {"reducer": "ltmp", "target": 0.6},
    {"reducer": "avit", "gamma": 4.0, "beta": 2.0},
]


@pytest.mark.parametrize(
    "tokens",
    [
        pytest.param(one, id=one["reducer"], marks=[] if number in {0, 4} else pytest.mark.slow)
        for number, one in enumerate(SEEN)
    ],
)
def test_the_cost_of_what_the_image_decides_is_measured_on_the_scored_split(
    tokens: dict[str, Any], digits: TensorData, tmp_path: Path
):
    c = on_digits(tokens=tokens)
    result = succeeded(run_trial(wanted(tmp_path, c, digits), context(digits)))
    known, measured = cost_of(c), result.measured
    assert known.kind == "bounded"
    assert measured is not None
    dense = cost_of(on_digits())
    assert known.num_macs <= measured.num_macs
    assert measured.num_macs_p95 is not None
    assert measured.num_macs <= measured.num_macs_p95 * 1.001
    assert measured.num_params == result.num_params == known.num_params
    assert measured.tokens[0] == dense.tokens[0]
    assert all(
        low <= mean <= high for low, mean, high in zip(known.tokens, measured.tokens, dense.tokens, strict=True)
    )
    # over a few images, against fvcore on each image alone
    model = load_model(c, tmp_path)
    few = digits.source.val[:6]
    part = TensorData(digits.source.__class__(**{**vars(digits.source), "val": few}), CPU)
    from vitsearch.compress import metered
    from vitsearch.cost import Tokens, measured_cost
    from vitsearch.train.evaluate import evaluate

    with metered(model) as meter:
        evaluate(model, part, few, batch_size=4)
    found = measured_cost(c, model.widths, Tokens(*meter.per_block(c.architecture.num_tokens, 3)))
    counted = macs_one_by_one(model, digits, len(few))
    assert found.num_macs == round(float(np.mean(counted)))
    assert found.num_macs_p95 == round(float(np.percentile(counted, 95)))


def test_what_a_budget_of_macs_leaves_is_measured(digits: TensorData, tmp_path: Path):
    c = on_digits(sparsity={"method": "magnitude", "macs_ratio": 0.6})
    result = succeeded(run_trial(wanted(tmp_path, c, digits), context(digits)))
    assert cost_of(c).kind == "measured"
    assert result.measured is not None
    assert result.measured.num_params == result.num_params
    assert result.measured.num_macs == pytest.approx(cost_of(c).num_macs, rel=0.01)
    model = load_model(c, tmp_path)
    assert count_macs(model, torch.zeros(1, 1, 8, 8)) == result.measured.num_macs


def test_an_exact_cost_is_not_measured(digits: TensorData, tmp_path: Path):
    c = on_digits(tokens={"reducer": "tome", "r": 2})
    assert succeeded(run_trial(wanted(tmp_path, c, digits, epochs=1), context(digits))).measured is None


LEARNING: dict[str, dict[str, Any]] = {
    "dynamicvit": {"reducer": "dynamicvit", "keep": 0.6},
    "ltmp": {"reducer": "ltmp", "target": 0.6},
    "avit": {"reducer": "avit", "gamma": 4.0, "beta": 2.0},
    "learned": {"reducer": "topk", "k": 6, "score": "learned"},
}


BESIDE: dict[str, dict[str, Any]] = {
    "alone": {},
    "width pruned, W8A8": {"sparsity": PRUNED, "precision": BITS},
    "blocks pruned in steps": {"sparsity": {"method": "taylor", "blocks": 2, "steps": 2}},
}


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        pytest.param(name, parts, marks=[] if i % len(BESIDE) == j and name != "learned" else pytest.mark.slow)
        for i, name in enumerate(LEARNING)
        for j, parts in enumerate(BESIDE)
    ],
)
def test_a_reducer_that_learns_trains_in_the_ordinary_loop(
    name: str, parts: str, digits: TensorData, tmp_path: Path
):
    c = on_digits(tokens=LEARNING[name], **BESIDE[parts])
    result = succeeded(run_trial(wanted(tmp_path, c, digits, finetune_epochs=2), context(digits)))
    assert result.accuracy > 2 * digits.source.chance_accuracy
    assert result.num_params == cost_of(c).num_params
    model = load_model(c, tmp_path)
    images_BCHW, _ = next(normalized_batches(digits, digits.source.val, 50))
    with torch.no_grad():
        correct = model(images_BCHW).argmax(dim=1) == digits.labels_N[torch.from_numpy(digits.source.val[:50])]
    assert correct.float().mean() > 2 * digits.source.chance_accuracy


@pytest.mark.slow
def test_learned_thresholds_approach_their_target(digits: TensorData, tmp_path: Path):
    """The share of MACs after fine-tuning is nearer to 0.6 than the network that removes nothing."""
    c = on_digits(tokens={"reducer": "ltmp", "target": 0.6})
    result = succeeded(run_trial(wanted(tmp_path, c, digits, finetune_epochs=8), context(digits)))
    assert result.measured is not None
    assert 0.4 < result.measured.num_macs / cost_of(on_digits()).num_macs < 0.85
    assert result.accuracy > 3 * digits.source.chance_accuracy


@pytest.mark.parametrize("mode", ["after", "finetune", "start"])
def test_tokens_come_in_when_the_recipe_says(mode: str, digits: TensorData, tmp_path: Path):
    c = on_digits(tokens={"reducer": "evit", "keep": 0.3, "fuse": False, "blocks": (1,)})
    planned: list[int] = []
    hooks = {"on_epoch": lambda report: planned.append(report.epochs)}
    one = wanted(tmp_path, c, digits, tokens=mode, epochs=2, finetune_epochs=1)
    found = succeeded(run_trial(one, context(digits, **hooks)))
    assert planned == [2, 2] + [1] * (mode == "finetune")
    assert (found.accuracy == found.dense_accuracy) == (mode == "start")


@pytest.mark.slow
def test_when_tokens_come_in(digits: TensorData, tmp_path: Path):
    """Training that has seen few tokens does better with few tokens; the network has the same cost either way."""
    c = on_digits(tokens={"reducer": "evit", "keep": 0.3, "fuse": False, "blocks": (1,)})
    found: dict[str, TrialResult] = {}
    for mode in ("after", "finetune", "start"):
        epochs: list[tuple[int, int]] = []
        hooks = {"on_epoch": lambda report, seen=epochs: seen.append((report.epoch, report.epochs))}
        one = wanted(tmp_path / mode, c, digits, tokens=mode, finetune_epochs=2)
        found[mode] = succeeded(run_trial(one, context(digits, **hooks)))
        assert found[mode].num_params == cost_of(c).num_params
        main = [(1, 4), (2, 4), (3, 4), (4, 4)]
        assert epochs == main + ([(1, 2), (2, 2)] if mode == "finetune" else [])
    assert found["start"].accuracy == found["start"].dense_accuracy
    assert found["finetune"].accuracy > found["after"].accuracy
    assert found["start"].accuracy > found["after"].accuracy
