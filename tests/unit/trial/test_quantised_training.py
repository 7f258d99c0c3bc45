"""Training through quantisers as a part of a trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.unit.train.factory import spec, tensor_data
from tests.unit.trial.factory import COMPRESSED, candidate, context, request
from vitsearch.config import EvaluateSpec, TrainSpec
from vitsearch.messages import EpochReport, TrialResult
from vitsearch.train.distill import LiveAnswers
from vitsearch.train.evaluate import evaluate
from vitsearch.train.tensors import TensorData
from vitsearch.trial import load_model, run_trial

FEW_BITS: dict[str, dict[str, Any]] = {
    "ternary": {"quantizer": "ternary", "weight_bits": 2, "activation_bits": 8},
    "W2A4": {"weight_bits": 2, "activation_bits": 4},
    "binary": {"quantizer": "binary", "weight_bits": 1, "activation_bits": 8},
}


@pytest.mark.slow
@pytest.mark.parametrize("precision", FEW_BITS.values(), ids=FEW_BITS)
def test_digits_in_few_bits_come_back_with_training(
    precision: dict[str, Any], digits: TensorData, tmp_path: Path
) -> None:
    accuracy = {}
    recipe = TrainSpec(epochs=5, batch_size=32, lr=3e-3, autocast="fp32", pos_embed_std=0.5, qat_epochs=2)
    for training in ("none", "ste", "lsq"):
        c = candidate(
            architecture={"num_classes": 10, "width": 32, "depth": 2},
            precision={**precision, "training": training},
        )
        result = run_trial(
            request(
                tmp_path / training, c, train=recipe, data_fingerprint=digits.source.fingerprint,
                evaluate=EvaluateSpec(batch_size=100),
            ),
            context(digits),
        )  # fmt: skip
        assert isinstance(result, TrialResult), result
        accuracy[training] = result.accuracy
        model = load_model(c, tmp_path / training)
        assert evaluate(model, digits, digits.source.val, batch_size=100).accuracy == result.accuracy
    assert min(accuracy["ste"], accuracy["lsq"]) > accuracy["none"] + 0.05, accuracy


@pytest.mark.parametrize("training", ["ste", "lsq"])
@pytest.mark.parametrize("quantizer", ["uniform", "repq", "twin", "ternary"])
def test_pruned_with_fewer_tokens_and_a_teacher(training: str, quantizer: str, tmp_path: Path) -> None:
    asked: list[int] = []

    class Teacher(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            asked.append(len(x))
            return torch.zeros(len(x), 3)

    precision = {
        "quantizer": quantizer,
        "weight_bits": 4,
        "activation_bits": 4,
        "noisy": True,
        "training": training,
    }
    c = candidate(**{**COMPRESSED, "precision": precision})
    data = tensor_data()
    teacher = LiveAnswers(
        Teacher(), image_size=8, in_chans=1, mean=data.source.mean, std=data.source.std,
        student_mean=data.mean, student_std=data.std,
    )  # fmt: skip
    recipe = spec(
        epochs=1, qat_epochs=2, finetune_epochs=1, distill={"method": "soft", "teacher": {"timm": "any"}}
    )
    reports: list[EpochReport] = []
    results = []
    for name in ("a", "b"):
        asked.clear()
        reports.clear()
        lent = context(data, on_epoch=reports.append, teachers=(teacher,))
        result = run_trial(request(tmp_path / name, c, train=recipe), lent)
        assert isinstance(result, TrialResult), result
        results.append(result)
    assert [(report.epoch, report.epochs) for report in reports] == [(1, 1), (1, 1), (1, 2), (2, 2)]
    assert sum(asked) == 4 * len(data.source.train), "the teacher answers in every epoch"
    assert results[0].weights_sha256 == results[1].weights_sha256


def test_bits_shared_out_by_sensitivity_come_back_with_the_weights(tmp_path: Path) -> None:
    precision = {"weight_bits": (8, 3, 3, 3, 8), "activation_bits": 8, "mixed": True, "training": "ste"}
    c = candidate(architecture={"depth": 5}, precision=precision).canonical()
    result = run_trial(request(tmp_path, c, train=spec(epochs=2)), context())
    assert isinstance(result, TrialResult), result
    model, data = load_model(c, tmp_path), tensor_data()
    assert evaluate(model, data, data.source.val, batch_size=7).loss == result.loss
    bits = [block.mlp.fc1.weight_bits for block in model.blocks]
    assert (bits[0], sum(bits[1:4]), bits[4]) == (8, 9, 8)
