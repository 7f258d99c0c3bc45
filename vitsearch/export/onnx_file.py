"""``model.onnx`` compared with PyTorch on real images."""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vitsearch.candidate import Candidate
from vitsearch.errors import ExportError
from vitsearch.export.contents import OnnxCheck
from vitsearch.models import VisionTransformer
from vitsearch.onnx import OnnxModel

MAX_RELATIVE_DIFF = 1e-4  # float32 arithmetic in another order stays two digits below
MAX_TIED_SHARE = 0.02
MAX_TIED_MEAN_DIFF = 0.02
BATCH_SIZE = 16

Logits = npt.NDArray[np.float32] | npt.NDArray[np.float64]


def check_onnx(candidate: Candidate, model: VisionTransformer, onnx: OnnxModel, images_NCHW: Tensor) -> OnnxCheck:
    """Compare the file with PyTorch.

    A network without hard decisions must agree within ``MAX_RELATIVE_DIFF`` of its largest logit on every image.
    Token reducers and quantisers decide hard: where two scores or two codes tie but for the last digit, another
    order of summation decides otherwise. For them at most ``MAX_TIED_SHARE`` of the images may differ (in class,
    if quantised), and twice those on which PyTorch itself differs between float32 and float64.

    Args:
        candidate: What the network is.
        model: The network.
        onnx: The file.
        images_NCHW: Normalised images, at least one.

    Raises:
        ExportError: They differ more; the message says in what.
    """
    ours, theirs = _torch_logits(model, images_NCHW), _onnx_logits(onnx, images_NCHW)
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise ExportError("the network's outputs are not finite, so it cannot be exported; choose another model")
    diff_NC = np.abs(ours - theirs)
    check = OnnxCheck(
        images=len(ours),
        max_abs_diff=float(diff_NC.max()),
        mean_abs_diff=float(diff_NC.mean()),
        max_abs_logit=float(np.abs(ours).max()),
        agreement=float((ours.argmax(1) == theirs.argmax(1)).mean()),
    )
    if check.max_abs_diff <= MAX_RELATIVE_DIFF * check.max_abs_logit:
        return check
    if candidate.tokens.reducer != "none" or not candidate.precision.is_float32:
        exact = _torch_logits(copy.deepcopy(model).double(), images_NCHW.double())
        if _only_ties(candidate, ours, theirs, exact):
            return check
    raise ExportError(
        f"model.onnx does not compute what PyTorch does on {check.images} real images: logits differ by up to "
        f"{check.max_abs_diff:.3g} and {check.mean_abs_diff:.3g} on average, where the largest is "
        f"{check.max_abs_logit:.3g}, and {check.agreement:.1%} of the classes agree; nothing was written"
    )


def _only_ties(candidate: Candidate, ours: Logits, theirs: Logits, exact: Logits) -> bool:
    """Whether the file strays from PyTorch no further than PyTorch from itself, give or take a tie."""
    scale = np.abs(ours).max()
    if candidate.precision.is_float32:

        def strays(other: Logits) -> int:
            return int((np.abs(ours - other).max(axis=1) > MAX_RELATIVE_DIFF * scale).sum())
    else:

        def strays(other: Logits) -> int:
            return int((ours.argmax(1) != other.argmax(1)).sum())

    def mean_diff(other: Logits) -> float:
        return float(np.abs(ours - other).mean() / scale)

    few = strays(theirs) <= MAX_TIED_SHARE * len(ours) + 2 * strays(exact)
    return few and mean_diff(theirs) <= MAX_TIED_MEAN_DIFF + 2 * mean_diff(exact)


@torch.inference_mode()
def _torch_logits(model: VisionTransformer, images_NCHW: Tensor) -> Logits:
    starts = range(0, len(images_NCHW), BATCH_SIZE)
    logits: Logits = torch.cat([model(images_NCHW[i : i + BATCH_SIZE]) for i in starts]).numpy()
    return logits


def _onnx_logits(onnx: OnnxModel, images_NCHW: Tensor) -> Logits:
    """The first image alone, so that more than one batch size is tried."""
    starts = range(1, len(images_NCHW), BATCH_SIZE)
    parts = [images_NCHW[:1], *(images_NCHW[i : i + BATCH_SIZE] for i in starts)]
    return np.concatenate([onnx(part.numpy()) for part in parts])
