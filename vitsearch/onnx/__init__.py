"""Convert to ONNX and run, nothing else."""

from vitsearch.onnx.convert import export_onnx
from vitsearch.onnx.run import OnnxModel

__all__ = ["OnnxModel", "export_onnx"]
