"""PyTorch as a runtime to measure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from vitsearch.candidate import Candidate
from vitsearch.config import TargetSpec
from vitsearch.models import VisionTransformer
from vitsearch.profile.runnable import Images, Runnable
from vitsearch.train.tensors import TensorData


def prepare_pytorch(
    model: VisionTransformer, candidate: Candidate, target: TargetSpec, folder: Path, data: TensorData | None
) -> Runnable:
    """Eagerly on the CPU in float32; bits are simulated as they were in the trial."""
    del candidate, target, data
    return _runnable(model, folder, torch.float32)


def prepare_pytorch_bf16(
    model: VisionTransformer, candidate: Candidate, target: TargetSpec, folder: Path, data: TensorData | None
) -> Runnable:
    """The same under autocast to bfloat16."""
    del candidate, target, data
    return _runnable(model, folder, torch.bfloat16)


def _runnable(model: VisionTransformer, folder: Path, dtype: torch.dtype) -> Runnable:
    def run(images_BCHW: Images) -> npt.NDArray[np.float32]:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            logits: npt.NDArray[np.float32] = model(torch.from_numpy(images_BCHW)).float().numpy()
        return logits

    name = "pytorch" if dtype == torch.float32 else "pytorch_bf16"
    form = str(dtype).removeprefix("torch.")
    return Runnable(run, folder / "model.safetensors", f"{name} {torch.__version__}", form)
