"""PyTorch as a runtime to measure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from vitsearch.config import TargetSpec


def prepare_pytorch(model: nn.Module, target: TargetSpec, folder: Path) -> tuple[Callable[[], object], Path, str]:
    """A call that runs one batch eagerly on the CPU in float32; with the file it loads and the runtime's name."""
    a = model.architecture  # type: ignore[attr-defined]
    images_BCHW = torch.randn(target.batch_size, a.in_chans, a.image_size, a.image_size)  # type: ignore[union-attr, arg-type]

    def call() -> object:
        with torch.inference_mode():
            return model(images_BCHW)

    return call, folder / "model.safetensors", f"pytorch {torch.__version__}"
