"""ONNX Runtime as a runtime to measure."""

from __future__ import annotations

from pathlib import Path

from vitsearch.candidate import Candidate
from vitsearch.config import TargetSpec
from vitsearch.models import VisionTransformer
from vitsearch.onnx import OnnxModel, export_onnx
from vitsearch.profile.runnable import Runnable
from vitsearch.train.tensors import TensorData

ONNX_FILE = "model.onnx"


def prepare_onnxruntime(
    model: VisionTransformer, candidate: Candidate, target: TargetSpec, folder: Path, data: TensorData | None
) -> Runnable:
    """The exported file in float32; exports it first if the folder has none yet."""
    import onnxruntime

    del candidate, data
    file = folder / ONNX_FILE
    export_once(model, file)
    return Runnable(OnnxModel(file, threads=target.threads), file, f"onnxruntime {onnxruntime.__version__}")


def export_once(model: VisionTransformer, file: Path) -> None:
    """Export a network, unless its file is there."""
    if not file.exists():
        a = model.architecture
        export_onnx(model, file, in_chans=a.in_chans, image_size=a.image_size)
