"""Files of eight-bit integers that ONNX Runtime's own kernels execute.

They are made from the network in floating point whose weights are the candidate's quantised ones: weights keep
their values, which lie on a grid of 8 bits for each output channel already; inputs of linear layers get the
ranges that the runtime chooses. Attention's products and everything else stay in float32. So a file computes
nearly what the trial has simulated, but not exactly: its accuracy is measured on itself.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from vitsearch.candidate import Candidate, Precision
from vitsearch.compress import assemble
from vitsearch.compress.quantize.layers import QuantizedProjection
from vitsearch.compress.quantize.noise import noisy_projections, remove_noise
from vitsearch.models import VisionTransformer
from vitsearch.onnx.int8 import quantize_dynamic_int8, quantize_static_int8
from vitsearch.profile.files import calibration_batches, export_once
from vitsearch.train.tensors import TensorData

FLOAT_FILE = "model.float.onnx"
DYNAMIC_FILE = "model.int8-dynamic.onnx"
QDQ_FILE = "model.int8-qdq.onnx"


def dynamic_int8_file(
    model: VisionTransformer, candidate: Candidate, folder: Path, data: TensorData | None
) -> Path:
    """Ranges of activations are found anew for each batch."""
    del data
    file = folder / DYNAMIC_FILE
    if not file.exists():
        export_once(float_network(model, candidate), folder / FLOAT_FILE)
        quantize_dynamic_int8(folder / FLOAT_FILE, file)
    return file


def qdq_int8_file(model: VisionTransformer, candidate: Candidate, folder: Path, data: TensorData | None) -> Path:
    """Ranges of activations are chosen beforehand, on training images.

    Raises:
        ValueError: There are no images.
    """
    file = folder / QDQ_FILE
    if not file.exists():
        if data is None:
            raise ValueError("onnxruntime_int8_qdq chooses its ranges on training images, and there are none")
        export_once(float_network(model, candidate), folder / FLOAT_FILE)
        quantize_static_int8(folder / FLOAT_FILE, file, calibration_batches(data))
    return file


@torch.no_grad()
def float_network(model: VisionTransformer, candidate: Candidate) -> VisionTransformer:
    """The same network without quantisers; its weights keep their quantised values.

    Args:
        model: With quantisers; stays as it is.
        candidate: What it is.
    """
    plain = candidate.model_copy(update={"precision": Precision()})
    model = copy.deepcopy(model)
    for projection in noisy_projections([m for m in model.modules() if isinstance(m, QuantizedProjection)]):
        remove_noise(projection)
    state = {name.replace(".layer.", "."): value for name, value in model.state_dict().items()}
    network = assemble(plain, state)
    network.load_state_dict({name: state[name] for name in network.state_dict()})
    return network
