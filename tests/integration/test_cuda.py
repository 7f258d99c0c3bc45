"""Every technique on a CUDA device; skipped where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vitsearch.candidate import PRUNERS, TOKEN_RULES, Architecture, Candidate, TokenRule
from vitsearch.candidate.precision import CALIBRATIONS, QUANTIZERS
from vitsearch.config import DatasetSpec, EvaluateSpec, TrainSpec
from vitsearch.cost import cost_of
from vitsearch.messages import TrialRequest, TrialResult
from vitsearch.testing.reducers import architectures, random_network
from vitsearch.train.autocast import fastest_autocast
from vitsearch.train.batches import Batch
from vitsearch.train.data import load_dataset
from vitsearch.train.distill import TeacherAnswers
from vitsearch.train.evaluate import evaluate
from vitsearch.train.tensors import TensorData
from vitsearch.trial import TrialContext, load_model, run_trial

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

ARCHITECTURE: dict[str, Any] = {
    "image_size": 8, "in_chans": 1, "num_classes": 10, "patch_size": 2, "depth": 3, "width": 32, "heads": 2,
    "mlp_ratio": 2.0,
}  # fmt: skip
W8A8 = {"weight_bits": 8, "activation_bits": 8}


@pytest.fixture(scope="module")
def digits() -> TensorData:
    data = load_dataset(DatasetSpec(kind="digits", max_images=700), image_size=8, seed=0)
    return TensorData(data, torch.device("cuda"))


def trained(
    parts: dict[str, Any],
    digits: TensorData,
    folder: Path,
    teachers: tuple[TeacherAnswers, ...] = (),
    **recipe: Any,
) -> TrialResult:
    """A trial on the device; its stored model scores on the processor nearly what it did there."""
    c = Candidate.model_validate({"architecture": {**ARCHITECTURE, **parts.pop("architecture", {})}, **parts})
    spec = {"epochs": 3, "batch_size": 64, "lr": 3e-3, "autocast": "fp32", "pos_embed_std": 0.5,
            "finetune_epochs": 2, **recipe}  # fmt: skip
    request = TrialRequest(
        trial=0, candidate=c, train=TrainSpec(**spec),
        evaluate=EvaluateSpec(batch_size=100, calibration_images=64),
        seed=0, data_fingerprint=digits.source.fingerprint, artifact_dir=str(folder),
    )  # fmt: skip
    outcome = run_trial(request, TrialContext(data=digits, teachers=teachers))
    assert isinstance(outcome, TrialResult), outcome
    assert outcome.device.startswith("cuda")
    assert c.sparsity.macs_ratio is not None or outcome.num_params == cost_of(c).num_params
    host = TensorData(digits.source, torch.device("cpu"))
    score = evaluate(load_model(c, folder), host, digits.source.val, batch_size=100)
    assert abs(score.accuracy - outcome.accuracy) < 0.03
    return outcome


@pytest.mark.parametrize("name", TOKEN_RULES)
def test_token_reducers(name: str, digits: TensorData, tmp_path: Path) -> None:
    tokens = TOKEN_RULES[name].examples()[0].model_dump(exclude={"blocks"})
    trained({"tokens": tokens}, digits, tmp_path)


@pytest.mark.parametrize("rule", [kind.examples()[0] for kind in TOKEN_RULES.values()], ids=lambda r: r.reducer)
@torch.no_grad()
def test_the_same_logits_as_on_the_processor(rule: TokenRule) -> None:
    """In float64, where no near tie is decided otherwise."""
    architecture = architectures(rule)["cls"]
    model = random_network(Candidate(architecture=architecture, tokens=rule)).double()
    images_BCHW = torch.randn(6, 1, 10, 10, generator=torch.Generator().manual_seed(0)).double()
    expected = model(images_BCHW)
    found: Tensor = model.cuda()(images_BCHW.cuda())
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("method", PRUNERS)
def test_pruning(method: str, digits: TensorData, tmp_path: Path) -> None:
    sparsity = {"method": method, "mlp_units": 40, "heads": 1, "qk_dim": 12, "width": 24, "blocks": 2}
    trained({"sparsity": sparsity, "tokens": {"reducer": "tome", "r": 2}}, digits, tmp_path, finetune_epochs=3)


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_quantisers(quantizer: str, digits: TensorData, tmp_path: Path) -> None:
    bits = {"ternary": (2, 8), "binary": (1, 8)}.get(quantizer, (6, 6))
    precision = {"quantizer": quantizer, "weight_bits": bits[0], "activation_bits": bits[1], "training": "ste"}
    trained({"precision": precision}, digits, tmp_path)


@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_calibrations(calibration: str, digits: TensorData, tmp_path: Path) -> None:
    trained({"precision": {**W8A8, "calibration": calibration, "training": "lsq"}}, digits, tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"patch_embedding": "spt", "attention": "lsa"},
        {"patch_embedding": "conv_stem"},
        {"class_attention_blocks": 1, "layer_scale": True},
        {"depth": 4, "share_blocks": 2},
        {"distilled": True},
        {"distilled": True, "distillation_tokens": 2},
        {"pooling_branches": True},
    ],
    ids=str,
)
def test_architectures(changes: dict[str, Any], digits: TensorData, tmp_path: Path) -> None:
    trained({"architecture": changes, "precision": W8A8}, digits, tmp_path)


def test_a_network_that_is_its_own_teacher(digits: TensorData, tmp_path: Path) -> None:
    trained(
        {"tokens": {"reducer": "evit", "keep": 0.6}}, digits, tmp_path, distill={"inner": "smkd"}, tokens="start"
    )


def test_two_teachers(digits: TensorData, tmp_path: Path) -> None:
    def sure(batch: Batch) -> Tensor:
        return (6.0 * F.one_hot(batch.targets, 10)).log_softmax(dim=1)

    both = {"method": "co_advise", "teacher": {"timm": "any"}, "second_teacher": {"timm": "other"}}
    parts = {"architecture": {"distilled": True, "distillation_tokens": 2}, "precision": W8A8}
    trained(parts, digits, tmp_path, teachers=(sure, sure), distill=both)


@pytest.mark.parametrize("mode", ["bf16_fused", "bf16_unfused"])
def test_bf16_with_everything(mode: str, digits: TensorData, tmp_path: Path) -> None:
    parts = {
        "tokens": {"reducer": "ltmp", "target": 0.7}, "sparsity": {"method": "taylor", "macs_ratio": 0.7},
        "precision": {**W8A8, "training": "ste"},
    }  # fmt: skip
    assert trained(parts, digits, tmp_path, autocast=mode).measured is not None


def test_a_number_format_is_chosen_for_the_device() -> None:
    found = fastest_autocast(Architecture.model_validate(ARCHITECTURE), 64, torch.device("cuda"))
    assert found in {"fp32", "bf16_fused", "bf16_unfused"}
