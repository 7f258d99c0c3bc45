"""Running an ONNX file with ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


class OnnxModel:
    """An ONNX file in ONNX Runtime.

    Args:
        path: File made by ``export_onnx``.
        threads: Compute threads of one call.
        device: ``cpu``, or ``cuda`` with the package onnxruntime-gpu.
    """

    def __init__(self, path: Path, *, threads: int = 1, device: str = "cpu") -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        providers = [*(["CUDAExecutionProvider"] if device == "cuda" else []), "CPUExecutionProvider"]
        self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=providers)

    def __call__(self, images_BCHW: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits (B, classes)."""
        logits: npt.NDArray[np.float32] = self._session.run(["logits"], {"images": images_BCHW})[0]
        return logits
