"""From a network to an ONNX file."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

OPSET = 18


def export_onnx(model: nn.Module, path: Path, *, in_chans: int, image_size: int) -> None:
    """Write ``path`` with input ``images`` (batch, C, H, W) float32 and output ``logits`` (batch, classes).

    The batch is free; token counts per block are fixed.

    Args:
        model: The network, in evaluation mode, on the CPU.
        path: File to write; weights are stored inside it.
        in_chans: Channels.
        image_size: Side in pixels.
    """
    import torch  # running a file needs none of it

    example = torch.zeros(2, in_chans, image_size, image_size)
    chatter = logging.getLogger("torch.onnx")
    level = chatter.level
    partial = path.with_name(path.name + ".partial")  # a file that exists is complete
    chatter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter reports its own deprecations, none of them ours
            torch.onnx.export(
                model.eval(),
                (example,),
                partial,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    finally:
        chatter.setLevel(level)
    _drop_traces(partial)
    partial.replace(path)


def _drop_traces(path: Path) -> None:
    """Remove the exporter's stack traces: they name folders of this machine and can outweigh the network."""
    import onnx

    proto: Any = onnx.load(path)
    parts = [proto, proto.graph, *proto.functions]
    for graph in [proto.graph, *proto.functions]:
        parts += [*graph.node, *graph.value_info, *graph.input, *graph.output]
    parts += proto.graph.initializer
    for part in parts:
        for field in ("metadata_props", "doc_string"):
            if field in part.DESCRIPTOR.fields_by_name:
                part.ClearField(field)
    onnx.save(proto, path)
