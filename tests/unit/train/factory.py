"""A tiny data set that can be learnt, and networks for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vitsearch.candidate import Architecture
from vitsearch.config import TrainSpec
from vitsearch.models import VisionTransformer, build_dense
from vitsearch.train.data import ImageData
from vitsearch.train.data.image_data import channel_statistics, fingerprint
from vitsearch.train.seeds import seed_everything
from vitsearch.train.tensors import TensorData

CPU = torch.device("cpu")
CLASSES = 3


def image_data(train: int = 42, *, channels: int = 1, size: int = 8, seed: int = 0) -> ImageData:
    """A bright quadrant names the class; ``train`` training images, 12 to validate, 9 to test."""
    generator = np.random.default_rng(seed)
    count = train + 21
    labels_N = np.arange(count) % CLASSES
    images_NHWC = generator.integers(0, 120, (count, size, size, channels), dtype=np.uint8)
    half = size // 2
    for image, label in zip(images_NHWC, labels_N, strict=True):
        image[(label // 2) * half :, (label % 2) * half :][:half, :half] += 120
    parts = np.arange(train), np.arange(train, train + 12), np.arange(train + 12, count)
    mean, std = channel_statistics(images_NHWC, parts[0])
    names = tuple("abc")
    images_NHWC.setflags(write=False)
    return ImageData(
        images_NHWC=images_NHWC, labels_N=labels_N, train=parts[0], val=parts[1], test=parts[2],
        class_names=names, mean=mean, std=std, skipped=(),
        fingerprint=fingerprint(images_NHWC, labels_N, parts, names),
    )  # fmt: skip


def tensor_data(train: int = 42, **changes: Any) -> TensorData:
    return TensorData(image_data(train, **changes), CPU)


def architecture(**changes: Any) -> Architecture:
    settings = {
        "image_size": 8, "in_chans": 1, "num_classes": CLASSES, "patch_size": 4, "depth": 2, "width": 16,
        "heads": 2, "mlp_ratio": 2.0,
    }  # fmt: skip
    return Architecture.model_validate({**settings, **changes})


def network(seed: int = 0, *, drop_path: float = 0.0, dropout: float = 0.0, **changes: Any) -> VisionTransformer:
    seed_everything(seed, 0)
    return build_dense(architecture(**changes), drop_path=drop_path, dropout=dropout)


def spec(**changes: Any) -> TrainSpec:
    settings = {"epochs": 2, "batch_size": 16, "warmup_epochs": 0.5, "autocast": "fp32"}
    return TrainSpec.model_validate({**settings, **changes})


def flat_weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])
