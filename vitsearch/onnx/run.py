"""Running an ONNX file with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vitsearch.errors import ExportError

GPU, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class OnnxModel:
    """An ONNX file in ONNX Runtime.

    Args:
        path: File made by ``export_onnx``.
        threads: Compute threads of one call.
        device: ``cpu``, or ``cuda`` with the package onnxruntime-gpu.

    Raises:
        ExportError: ONNX Runtime does not take the file, or at a call the images; or it cannot use the GPU.
    """

    def __init__(self, path: Path, *, threads: int = 1, device: str = "cpu") -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        providers: list[Any] = [*([(GPU, {"use_tf32": 0})] if device == "cuda" else []), CPU]
        self._path = path
        with self._telling("load"):
            self._session: Any = onnxruntime.InferenceSession(
                str(path), options, providers=providers, enable_fallback=0
            )
        if device == "cuda" and self._session.get_providers()[0] != GPU:  # left out with no more than a log line
            raise ExportError(
                "ONNX Runtime cannot use the GPU and would compute on the CPU; install the CUDA and cuDNN "
                f"libraries that onnxruntime-gpu {onnxruntime.__version__} was built for, where it finds them"
            )

    def __call__(self, images_BCHW: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits (B, classes)."""
        with self._telling("run"):
            logits: npt.NDArray[np.float32] = self._session.run(["logits"], {"images": images_BCHW})[0]
        return logits

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # its classes have no base of their own
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ExportError(f"ONNX Runtime cannot {what} {self._path}: {reason}") from error
