"""ONNX Runtime as a runtime to measure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import nn

from vitsearch.config import TargetSpec
from vitsearch.models import VisionTransformer
from vitsearch.onnx import OnnxModel, export_onnx

ONNX_FILE = "model.onnx"


def prepare_onnxruntime(
    model: nn.Module, target: TargetSpec, folder: Path
) -> tuple[Callable[[], object], Path, str]:
    """A call that runs one batch of the exported file; exports it first if the folder has none yet."""
    import onnxruntime

    assert isinstance(model, VisionTransformer)
    a = model.architecture
    file = folder / ONNX_FILE
    if not file.exists():
        export_onnx(model, file, in_chans=a.in_chans, image_size=a.image_size)
    session = OnnxModel(file, threads=target.threads)
    generator = np.random.default_rng(0)
    shape = (target.batch_size, a.in_chans, a.image_size, a.image_size)
    images_BCHW = generator.standard_normal(shape, dtype=np.float32)
    return lambda: session(images_BCHW), file, f"onnxruntime {onnxruntime.__version__}"
