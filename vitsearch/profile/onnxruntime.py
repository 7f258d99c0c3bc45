"""ONNX Runtime as a runtime to measure."""

from __future__ import annotations

from vitsearch.config import TargetSpec
from vitsearch.onnx.run import OnnxModel
from vitsearch.profile.runnable import Model, Runnable


def load_float(model: Model, target: TargetSpec) -> Runnable:
    """In float32; bits are simulated as they were in the trial."""
    return _runnable(model, target, "float32")


def load_int8(model: Model, target: TargetSpec) -> Runnable:
    """Linear layers in integers of eight bits."""
    return _runnable(model, target, "int8")


def _runnable(model: Model, target: TargetSpec, dtype: str) -> Runnable:
    import onnxruntime

    if target.device == "cuda" and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise RuntimeError("onnxruntime on cuda needs the package onnxruntime-gpu on the target")
    run = OnnxModel(model.file, threads=target.threads, device=target.device)
    return Runnable(run=run, dtype=dtype)
