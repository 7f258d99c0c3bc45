"""Candidates whose tokens the image decides, or a reducer that learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.train.factory import CPU
from tests.unit.trial.factory import candidate, context, request
from tests.unit.trial.test_run import succeeded
from vitsearch.candidate import Candidate
from vitsearch.config import DatasetSpec, EvaluateSpec, TrainSpec
from vitsearch.cost import cost_of
from vitsearch.messages import TrialRequest, TrialResult
from vitsearch.models import VisionTransformer
from vitsearch.profile import count_macs
from vitsearch.train.data import load_dataset
from vitsearch.train.evaluate import normalized_batches
from vitsearch.train.tensors import TensorData
from vitsearch.trial import load_model, run_trial

BITS = {"weight_bits": 8, "activation_bits": 8}
PRUNED = {"method": "magnitude", "mlp_units": 20, "width": 24}


@pytest.fixture(scope="module")
def digits() -> TensorData:
    return TensorData(load_dataset(DatasetSpec(kind="digits"), image_size=8, seed=0), CPU)


def wanted(folder: Path, c: Candidate, digits: TensorData, **recipe: Any) -> TrialRequest:
    train = TrainSpec(
        **{"epochs": 4, "batch_size": 32, "lr": 3e-3, "autocast": "fp32", "pos_embed_std": 0.5, **recipe}
    )
    return request(
        folder, c, train=train, data_fingerprint=digits.source.fingerprint, evaluate=EvaluateSpec(batch_size=50)
    )


def on_digits(**parts: Any) -> Candidate:
    return candidate(architecture={"num_classes": 10, "width": 32, "depth": 3}, **parts)


def macs_one_by_one(model: VisionTransformer, digits: TensorData, count: int) -> list[int]:
    """What fvcore counts for each of the first validation images alone."""
    indices = digits.source.val[:count]
    return [count_macs(model, images) for images, _ in normalized_batches(digits, indices, 1)]


@pytest.mark.parametrize(
    "tokens",
    [
        {"reducer": "threshold", "tau": 0.06, "score": "cls_attention"},
        {"reducer": "threshold", "tau": 0.06, "rest": "merge", "score": "learned"},
        {"reducer": "ats", "samples": 12},
        {"reducer": "similarity_pool", "cosine": 0.8},
        {"reducer": "ltmp", "target": 0.6},
        {"reducer": "avit", "gamma": 4.0, "beta": 2.0},
    ],
    ids=lambda tokens: tokens["reducer"],
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


@pytest.mark.parametrize("name", LEARNING)
@pytest.mark.parametrize(
    "parts",
    [{}, {"sparsity": PRUNED, "precision": BITS}, {"sparsity": {"method": "taylor", "blocks": 2, "steps": 2}}],
    ids=["alone", "width pruned, W8A8", "blocks pruned in steps"],
)
def test_a_reducer_that_learns_trains_in_the_ordinary_loop(
    name: str, parts: dict[str, Any], digits: TensorData, tmp_path: Path
):
    c = on_digits(tokens=LEARNING[name], **parts)
    result = succeeded(run_trial(wanted(tmp_path, c, digits, finetune_epochs=2), context(digits)))
    assert result.accuracy > 2 * digits.source.chance_accuracy
    assert result.num_params == cost_of(c).num_params
    model = load_model(c, tmp_path)
    images_BCHW, _ = next(normalized_batches(digits, digits.source.val, 50))
    with torch.no_grad():
        correct = model(images_BCHW).argmax(dim=1) == digits.labels_N[torch.from_numpy(digits.source.val[:50])]
    assert correct.float().mean() > 2 * digits.source.chance_accuracy


def test_learned_thresholds_approach_their_target(digits: TensorData, tmp_path: Path):
    """The share of MACs after fine-tuning is nearer to 0.6 than the network that removes nothing."""
    c = on_digits(tokens={"reducer": "ltmp", "target": 0.6})
    result = succeeded(run_trial(wanted(tmp_path, c, digits, finetune_epochs=8), context(digits)))
    assert result.measured is not None
    assert 0.4 < result.measured.num_macs / cost_of(on_digits()).num_macs < 0.85
    assert result.accuracy > 3 * digits.source.chance_accuracy


@pytest.mark.parametrize("mode", ["after", "finetune", "start"])
def test_when_tokens_come_in(mode: str, digits: TensorData, tmp_path: Path):
    """Training that has seen few tokens does better with few tokens; the network has the same cost either way."""
    c = on_digits(tokens={"reducer": "evit", "keep": 0.3, "fuse": False, "blocks": (1,)})
    epochs: list[tuple[int, int]] = []
    hooks = {"on_epoch": lambda report: epochs.append((report.epoch, report.epochs))}
    recipe = {"tokens": mode, "finetune_epochs": 2}
    result = succeeded(run_trial(wanted(tmp_path, c, digits, **recipe), context(digits, **hooks)))
    assert result.num_params == cost_of(c).num_params
    main = [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert epochs == main + ([(1, 2), (2, 2)] if mode == "finetune" else [])
    ACCURACIES[mode] = result
    if len(ACCURACIES) == 3:
        assert ACCURACIES["start"].accuracy == ACCURACIES["start"].dense_accuracy
        assert ACCURACIES["finetune"].accuracy > ACCURACIES["after"].accuracy
        assert ACCURACIES["start"].accuracy > ACCURACIES["after"].accuracy


ACCURACIES: dict[str, TrialResult] = {}
