"""Models, facts and images the export tests share."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.candidate.factory import micro
from vitsearch.candidate import Candidate
from vitsearch.compress import assemble, calibrate
from vitsearch.config import DatasetSpec, TrainSpec
from vitsearch.cost import cost_of
from vitsearch.export import Bundle, ModelFacts, Preprocess, export_bundle
from vitsearch.export.bundle import network_input
from vitsearch.messages import Conditions, Profile
from vitsearch.models import VisionTransformer
from vitsearch.storage import DataSummary
from vitsearch.train.data import ImageData, load_dataset
from vitsearch.trial import save_model

CANDIDATES: dict[str, Candidate] = {
    "dense": micro(),
    "tome_w8a8_pruned": micro(
        tokens={"reducer": "tome", "r": 2},
        sparsity={"method": "magnitude", "mlp_units": 96, "heads": [4, 3, 4, 2]},
        precision={"weight_bits": 8, "activation_bits": 8},
    ),
    "evit": micro(tokens={"reducer": "evit", "keep": 0.6}),
    "ppt": micro(tokens={"reducer": "ppt", "r": 4}),
}
EACH_CANDIDATE = [
    pytest.param(name, marks=pytest.mark.slow if name in {"ppt", "evit"} else ()) for name in CANDIDATES
]
PROFILE = Profile(
    latency_ms_p50=1.25, latency_ms_p95=1.5, latency_ms_spread=0.08, images_per_s=800.0, peak_memory_mb=12.0,
    file_size_mb=0.2,
    conditions=Conditions(
        target="local", runtime="pytorch 2.9", device="A|B <processor>", dtype="float32", batch_size=1, threads=2,
        warmup=5, repeats=30, contended=False,
    ),
)  # fmt: skip


def digits() -> ImageData:
    return load_dataset(DatasetSpec(kind="digits"), image_size=8, seed=0)


def summary(data: ImageData, **changes: Any) -> DataSummary:
    values = {
        "fingerprint": data.fingerprint, "class_names": data.class_names, "in_chans": data.in_chans,
        "image_size": data.image_size, "mean": data.mean, "std": data.std, "num_train": len(data.train),
        "num_val": len(data.val), "num_test": len(data.test), "chance_accuracy": data.chance_accuracy,
        "skipped": data.skipped,
    }  # fmt: skip
    return DataSummary.model_validate(values | changes)


def random_model(candidate: Candidate, data: ImageData) -> VisionTransformer:
    """Weights large enough that images differ in class."""
    torch.manual_seed(7)
    model = assemble(candidate)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    calibrate(model, [network_input(data.images_NHWC[data.train[:64]], Preprocess.of(summary(data)))])
    return model


def trained(candidate: Candidate, data: ImageData, folder: Path) -> tuple[VisionTransformer, str]:
    model = random_model(candidate, data)
    return model, save_model(model, candidate, folder)


def facts(candidate: Candidate, sha256: str, **changes: Any) -> ModelFacts:
    cost = cost_of(candidate)
    values = {
        "study": "digits-demo", "trial": 12, "accuracy_val": 0.9, "epochs": 10, "seed": 3, "train": TrainSpec(),
        "figures": {"eer_pct": cost.eer_pct(), "size_mb": cost.size_mb}, "profiles": (PROFILE,),
        "weights_sha256": sha256,
    }  # fmt: skip
    return ModelFacts.model_validate(values | changes)


def exported(candidate: Candidate, data: ImageData, folder: Path, **changes: Any) -> Bundle:
    _, sha256 = trained(candidate, data, folder / "weights")
    arguments = {
        "candidate": candidate, "weights_folder": folder / "weights", "data": summary(data),
        "facts": facts(candidate, sha256), "images_NHWC": data.images_NHWC[data.val[:64]],
        "out": folder / "bundle",
    }  # fmt: skip
    return export_bundle(**(arguments | changes))


def normalized(data: ImageData, indices: np.ndarray) -> torch.Tensor:
    """As training normalises, written out here once more."""
    images_NCHW = torch.from_numpy(data.images_NHWC[indices]).permute(0, 3, 1, 2).double() / 255
    mean, std = (torch.tensor(values).double().view(1, -1, 1, 1) for values in (data.mean, data.std))
    return ((images_NCHW - mean) / std).float()
