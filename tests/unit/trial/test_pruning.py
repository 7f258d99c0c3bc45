"""Pruned candidates on real images, and pruning beside everything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.unit.trial.factory import context, on_digits, wanted
from tests.unit.trial.test_run import succeeded
from vitsearch.candidate import LEARNING_EPOCHS, LEARNING_PRUNERS, PRUNERS
from vitsearch.compress.weights.units import projections
from vitsearch.cost import cost_of
from vitsearch.profile.macs import count_macs
from vitsearch.train.batches import Batch
from vitsearch.train.evaluate import evaluate
from vitsearch.train.tensors import TensorData
from vitsearch.trial import load_model, run_trial

BITS = {"weight_bits": 8, "activation_bits": 8}


MASKS: list[dict[str, Any]] = [
    {"mask": "2:4"},
    {"mask": "unstructured", "zeros": 0.6, "steps": 2, "schedule": "cubic"},
    {"method": "taylor", "mlp_units": 21, "heads": 1, "mask": "2:4", "steps": 2},
    {"method": "magnitude", "macs_ratio": 0.6, "mask": "unstructured", "zeros": 0.3},
]
WITH_ALL = {"tokens": {"reducer": "dynamicvit", "keep": 0.6}, "precision": BITS}


@pytest.mark.parametrize(
    ("sparsity", "parts"),
    [
        pytest.param(MASKS[0], WITH_ALL, marks=pytest.mark.slow),
        pytest.param(MASKS[1], {}, marks=pytest.mark.slow),
        pytest.param(MASKS[1], WITH_ALL, marks=pytest.mark.slow),
        (MASKS[2], {}),
        pytest.param(MASKS[2], WITH_ALL, marks=pytest.mark.slow),
        pytest.param(MASKS[3], WITH_ALL, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_masks_in_a_trial(sparsity: dict[str, Any], parts: dict[str, Any], digits: TensorData, tmp_path: Path):
    c = on_digits(sparsity=sparsity, **parts)
    result = succeeded(run_trial(wanted(tmp_path, c, digits, finetune_epochs=2), context(digits)))
    cost = cost_of(c).after(result.measured)
    assert result.num_params == cost.num_params
    assert result.accuracy > 3 * digits.source.chance_accuracy
    model = load_model(c, tmp_path)
    shares = []
    for parent, name in projections(model):
        layer = getattr(parent, name)
        shares.append(float((getattr(layer, "layer", layer).weight == 0).float().mean()))
    least = 0.47 if sparsity["mask"] == "2:4" else sparsity["zeros"] - 0.01  # 21 inputs leave a group of one
    assert min(shares) >= least  # rounding to 8 bits adds some
    if not parts:
        assert max(shares) < least + 0.04
        assert count_macs(model, torch.zeros(1, 1, 8, 8), nonzero=True) == cost.num_macs


@pytest.mark.parametrize("training", [pytest.param("ste", marks=pytest.mark.slow), "lsq"])
def test_zeros_outlast_training_through_quantisers(training: str, digits: TensorData, tmp_path: Path):
    """2:4, then training through 8-bit quantisers (GPUSQ-ViT): still at most two weights of every four."""
    c = on_digits(sparsity={"mask": "2:4"}, precision={**BITS, "training": training})
    result = succeeded(run_trial(wanted(tmp_path, c, digits, finetune_epochs=1, qat_epochs=2), context(digits)))
    assert result.accuracy > 3 * digits.source.chance_accuracy
    for parent, name in projections(load_model(c, tmp_path)):
        weight = getattr(parent, name).layer.weight
        assert int((weight.view(len(weight), -1, 4) != 0).sum(dim=2).max()) == 2


@pytest.mark.slow
def test_many_zeros_cost_accuracy_which_fine_tuning_brings_back(digits: TensorData, tmp_path: Path):
    def accuracy(zeros: float, finetune_epochs: int) -> float:
        c = on_digits(sparsity={"mask": "unstructured", "zeros": zeros})
        one = wanted(tmp_path / f"{zeros}-{finetune_epochs}", c, digits, finetune_epochs=finetune_epochs)
        return succeeded(run_trial(one, context(digits))).accuracy

    mild, harsh, healed = accuracy(0.2, 0), accuracy(0.9, 0), accuracy(0.9, 2)
    assert harsh < mild - 0.1
    assert healed > harsh + 0.1


LEARNT: dict[str, dict[str, Any]] = {
    "counts": {"mlp_units": (10, 50, 30), "heads": 1},
    "budget": {"macs_ratio": 0.5},
    "steps, 2:4": {"blocks": 2, "mlp_units": 20, "steps": 2, "mask": "2:4"},
}


@pytest.mark.parametrize(
    ("method", "shape"),
    [
        pytest.param(method, shape, marks=[] if fast else pytest.mark.slow)
        for i, method in enumerate(("nvit", "xpruner", "wdpruning"))
        for j, shape in enumerate(LEARNT)
        for fast in (i == j,)
    ],
)
def test_rankings_beside_tokens_bits_and_distillation(method: str, shape: str, digits: TensorData, tmp_path: Path):
    tokens = {"reducer": "evit", "keep": 0.7, "blocks": (2,)}
    c = on_digits(sparsity={"method": method, **LEARNT[shape]}, precision=BITS, tokens=tokens)
    recipe = {"finetune_epochs": 4, "distill": {"method": "soft", "teacher": {"timm": "vit_tiny_patch16_224"}}}

    def sure(batch: Batch) -> Tensor:
        """A teacher that is nearly certain of the right class."""
        return F.log_softmax(6.0 * F.one_hot(batch.targets, 10), dim=1)

    result = succeeded(run_trial(wanted(tmp_path, c, digits, **recipe), context(digits, teachers=(sure,))))
    assert result.num_params == cost_of(c).after(result.measured).num_params
    assert result.accuracy > 4 * digits.source.chance_accuracy
    model = load_model(c, tmp_path)
    score = evaluate(model, digits, digits.source.val, batch_size=50)
    assert score.accuracy == result.accuracy


@pytest.mark.slow
def test_rankings_beat_the_random_one(digits: TensorData, tmp_path: Path):
    """Without fine-tuning what is left is the ranking's own doing; those that learn need one epoch of it."""

    def accuracy(method: str, finetune_epochs: int) -> float:
        c = on_digits(sparsity={"method": method, "macs_ratio": 0.4})
        found = []
        for seed in (1, 2):
            folder = tmp_path / f"{method}-{finetune_epochs}-{seed}"
            one = wanted(folder, c, digits, epochs=8, finetune_epochs=finetune_epochs)
            one = one.model_copy(update={"seed": seed})
            found.append(succeeded(run_trial(one, context(digits))).accuracy)
        return sum(found) / len(found)

    chance = {epochs: accuracy("random", epochs) for epochs in (0, 1)}
    for method in sorted({*PRUNERS} - {"random"}):
        learns = method in LEARNING_PRUNERS
        reached = accuracy(method, LEARNING_EPOCHS if learns else 0)
        assert reached > chance[int(learns)], method
