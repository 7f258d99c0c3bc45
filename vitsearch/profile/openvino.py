"""OpenVINO as a runtime to measure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vitsearch.config import TargetSpec
from vitsearch.profile.runnable import Images, Model, Runnable


def load_openvino(model: Model, target: TargetSpec) -> Runnable:
    """In float32 on the CPU, for the batch it is measured with, in latency mode."""
    import openvino

    core = openvino.Core()
    network = core.read_model(model.file)
    channels, height, width = (network.inputs[0].partial_shape[axis] for axis in (1, 2, 3))
    network.reshape([target.batch_size, channels, height, width])
    compiled = core.compile_model(
        network,
        "CPU",
        {
            "INFERENCE_NUM_THREADS": target.threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",  # it would choose bf16 by itself where the processor has it
        },
    )
    request = compiled.create_infer_request()

    def run(images_BCHW: Images) -> npt.NDArray[np.float32]:
        logits_BC: npt.NDArray[np.float32] = request.infer([images_BCHW])[compiled.outputs[0]]
        return logits_BC

    return Runnable(run=run)
