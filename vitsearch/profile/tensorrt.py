"""TensorRT as a runtime to measure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vitsearch.config import TargetSpec
from vitsearch.profile.runnable import Images, Model, Runnable


def load_tensorrt(model: Model, target: TargetSpec) -> Runnable:
    """In float32, TF32 off, on the first GPU, for the batch it is measured with; loading builds the engine.

    Raises:
        RuntimeError: TensorRT does not take the file; the message is its own.
    """
    import tensorrt as trt
    import torch

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network()
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.file.read_bytes()):
        raise RuntimeError(f"TensorRT does not take the model: {parser.get_error(0)}")
    shape = (target.batch_size, *tuple(network.get_input(0).shape)[1:])
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    profile.set_shape("images", shape, shape, shape)
    config.add_optimization_profile(profile)
    config.clear_flag(trt.BuilderFlag.TF32)
    built = builder.build_serialized_network(network, config)
    if built is None:
        raise RuntimeError("TensorRT could not build an engine of the model")
    engine = trt.Runtime(logger).deserialize_cuda_engine(built)
    context, stream = engine.create_execution_context(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    images = torch.empty(shape, device="cuda")
    context.set_input_shape("images", shape)
    logits = torch.empty(tuple(context.get_tensor_shape("logits")), device="cuda")
    context.set_tensor_address("images", images.data_ptr())
    context.set_tensor_address("logits", logits.data_ptr())

    def run(images_BCHW: Images) -> npt.NDArray[np.float32]:
        with torch.cuda.stream(stream):
            images.copy_(torch.from_numpy(images_BCHW))
            if not context.execute_async_v3(stream.cuda_stream):
                raise RuntimeError("TensorRT could not run the engine")
            answer: npt.NDArray[np.float32] = logits.cpu().numpy()
        return answer

    return Runnable(run=run)
