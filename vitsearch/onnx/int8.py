"""From a float32 ONNX file to one of 8-bit integers that ONNX Runtime's own kernels execute."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.float32]


def quantize_dynamic_int8(source: Path, path: Path) -> None:
    """Weights in int8, per output channel; each product's other operand is quantised as it arrives, in uint8.

    Args:
        source: A file made by ``export_onnx``.
        path: File to write.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    def convert(prepared: Path, partial: Path) -> None:
        quantize_dynamic(
            prepared,
            partial,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul", "Gemm"],
        )

    _convert(source, path, convert)


def quantize_static_int8(source: Path, path: Path, batches_BCHW: Sequence[Images]) -> None:
    """Weights in int8, per output channel, and inputs of linear layers in uint8 in ranges chosen beforehand (QDQ).

    Args:
        source: A file made by ``export_onnx``.
        path: File to write.
        batches_BCHW: Normalised training images; ranges cover what the network makes of them.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # untyped
        def __init__(self) -> None:
            self._batches: Iterator[Images] = iter(batches_BCHW)

        def get_next(self) -> dict[str, Images] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"images": batch}

    def convert(prepared: Path, partial: Path) -> None:
        quantize_static(
            prepared, partial, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"],
            extra_options={"MatMulConstBOnly": True},
        )  # fmt: skip

    _convert(source, path, convert)


def _convert(source: Path, path: Path, convert: Any) -> None:
    """Fold what can be folded, then convert; a file that exists is complete."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared, partial = path.with_name(path.name + ".prepared"), path.with_name(path.name + ".partial")
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # the converter advises what is done here already
    try:
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        # Shapes that name the batch otherwise than the input does would stop the converter's own inference.
        model = onnx.load(prepared)
        del model.graph.value_info[:]
        onnx.save(model, prepared)
        convert(prepared, partial)
    finally:
        logger.setLevel(level)
        prepared.unlink(missing_ok=True)
    partial.replace(path)
