"""Requests for tiny trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.unit.train.factory import architecture, image_data, spec, tensor_data
from vitsearch.candidate import Candidate
from vitsearch.config import EvaluateSpec, TrainSpec
from vitsearch.messages import TrialRequest
from vitsearch.train.tensors import TensorData
from vitsearch.trial import TrialContext

COMPRESSED: dict[str, Any] = {
    "tokens": {"reducer": "tome", "r": 2},
    "sparsity": {"method": "magnitude", "mlp_units": 20, "heads": (1, 2)},
    "precision": {"weight_bits": 8, "activation_bits": 8},
}


def candidate(**parts: Any) -> Candidate:
    changes = parts.pop("architecture", {})
    return Candidate.model_validate({"architecture": architecture(patch_size=2, **changes), **parts})


def request(folder: Path, c: Candidate | None = None, **changes: Any) -> TrialRequest:
    settings = {
        "trial": 3, "candidate": c or candidate(), "train": spec(), "evaluate": EvaluateSpec(batch_size=7),
        "seed": 11, "data_fingerprint": image_data().fingerprint, "artifact_dir": str(folder),
    }  # fmt: skip
    return TrialRequest.model_validate({**settings, **changes})


def context(data: TensorData | None = None, **hooks: Any) -> TrialContext:
    return TrialContext(data=data or tensor_data(), **hooks)


def wanted(folder: Path, c: Candidate, digits: TensorData, **recipe: Any) -> TrialRequest:
    """A trial on digits, of four epochs unless the recipe says otherwise."""
    train = TrainSpec(
        **{"epochs": 4, "batch_size": 32, "lr": 3e-3, "autocast": "fp32", "pos_embed_std": 0.5, **recipe}
    )
    return request(
        folder, c, train=train, data_fingerprint=digits.source.fingerprint, evaluate=EvaluateSpec(batch_size=50)
    )


def on_digits(**parts: Any) -> Candidate:
    """A candidate for digits that learns in seconds."""
    return candidate(
        architecture={"num_classes": 10, "width": 32, "depth": 3, **parts.pop("architecture", {})}, **parts
    )
