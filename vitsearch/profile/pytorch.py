"""PyTorch as a runtime to measure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from vitsearch.config import TargetSpec
from vitsearch.models import VisionTransformer


def prepare_pytorch(model: nn.Module, target: TargetSpec, folder: Path) -> tuple[Callable[[], object], Path, str]:
    """A call that runs one batch eagerly on the CPU in float32; with the file it loads and the runtime's name."""
    assert isinstance(model, VisionTransformer)
    a = model.architecture
    images_BCHW = torch.randn(target.batch_size, a.in_chans, a.image_size, a.image_size)

    def call() -> object:
        with torch.inference_mode():
            return model(images_BCHW)

    return call, folder / "model.safetensors", f"pytorch {torch.__version__}"
