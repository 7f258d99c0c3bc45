"""PyTorch as a runtime to measure: eager, under autocast, compiled."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vitsearch.compress.saved import load_weights
from vitsearch.config import TargetSpec
from vitsearch.profile.runnable import Images, Model, Runnable

MOST_GRAPHS = 64  # of one function in one network: as many as blocks that differ, where a reducer parts the graph


def load_eager(model: Model, target: TargetSpec) -> Runnable:
    """In float32; bits are simulated as they were in the trial."""
    return _runnable(_network(model, target), target)


def load_eager_bf16(model: Model, target: TargetSpec) -> Runnable:
    """The same under autocast to bfloat16."""
    return _runnable(_network(model, target), target, torch.bfloat16)


def load_compiled(model: Model, target: TargetSpec) -> Runnable:
    """Through ``torch.compile``, for the batch it is measured with; the first call compiles.

    Raises:
        RuntimeError: On a CPU, if there is no C++ compiler. A call raises where the compiler gives up.
    """
    import torch._dynamo.config as dynamo
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    if target.device == "cpu":
        try:
            get_cpp_compiler()
        except InvalidCxxCompiler as error:
            raise RuntimeError("pytorch_compiled needs a C++ compiler on the target; install g++ there") from error
    # The compiler counts its graphs of a function over all networks of the process, and runs what goes beyond its
    # limit uncompiled, which would be recorded as compiled: each network begins anew, and beyond the limit fails.
    torch.compiler.reset()
    dynamo.recompile_limit, dynamo.fail_on_recompile_limit_hit = MOST_GRAPHS, True
    return _runnable(torch.compile(_network(model, target), dynamic=False), target)


def _network(model: Model, target: TargetSpec) -> torch.nn.Module:
    if target.device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(f"target {target.name!r} has no GPU that PyTorch {torch.__version__} finds")
    return load_weights(model.candidate, model.file).to(target.device)


def _runnable(
    network: Callable[[Tensor], Tensor], target: TargetSpec, dtype: torch.dtype = torch.float32
) -> Runnable:
    threads = torch.get_num_threads()
    torch.set_num_threads(target.threads)

    def run(images_BCHW: Images) -> npt.NDArray[np.float32]:
        with (
            torch.inference_mode(),
            torch.autocast(target.device, torch.bfloat16, enabled=dtype == torch.bfloat16),
        ):
            logits_BC = network(torch.from_numpy(images_BCHW).to(target.device))
            answer: npt.NDArray[np.float32] = logits_BC.float().cpu().numpy()  # waits for a GPU
        return answer

    return Runnable(
        run=run,
        dtype=str(dtype).removeprefix("torch."),
        close=lambda: torch.set_num_threads(threads),
    )
