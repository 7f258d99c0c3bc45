"""Running an ONNX file with ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


class OnnxModel:
    """An ONNX file on the CPU.

    Args:
        path: File made by ``export_onnx``.
        threads: Compute threads of one call.
    """

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def __call__(self, images_BCHW: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits (B, classes)."""
        logits: npt.NDArray[np.float32] = self._session.run(["logits"], {"images": images_BCHW})[0]
        return logits
