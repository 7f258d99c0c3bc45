"""``model.int8.onnx``: the network in 8-bit integers that ONNX Runtime executes, scored on itself."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from vitsearch.candidate import Candidate
from vitsearch.config import RUNTIMES
from vitsearch.errors import ExportError, InputError
from vitsearch.export.contents import INT8_FILE, Int8File, Int8Kind
from vitsearch.models import VisionTransformer
from vitsearch.onnx import OnnxModel
from vitsearch.profile.choice import executes
from vitsearch.profile.files import MAKERS, sample_images
from vitsearch.storage import DataSummary
from vitsearch.train.tensors import TensorData

RUNTIME_OF: dict[Int8Kind, str] = {"dynamic": "onnxruntime_int8_dynamic", "qdq": "onnxruntime_int8_qdq"}
BATCH_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class Int8Request:
    """An int8 file that a bundle shall hold.

    Attributes:
        kind: ``dynamic`` finds the ranges of activations for each batch, ``qdq`` has them chosen beforehand.
        data: The study's images: training images choose ranges, validation images score the file.
    """

    kind: Int8Kind
    data: TensorData


def require_int8(candidate: Candidate, kind: Int8Kind) -> None:
    """Refuse a candidate of other bits, whose file would compute something that the search has not scored.

    Raises:
        InputError: The candidate's weights and activations do not have 8 bits everywhere.
    """
    if not executes(RUNTIME_OF[kind], candidate):
        raise InputError(
            "needs a model whose weights and activations have 8 bits in every block",
            where="vitsearch export", field="--int8", value=candidate.summary(),
            remedy="choose a W8A8 member of the front with --select, or leave --int8 out",
        )  # fmt: skip


def require_usable(request: Int8Request, candidate: Candidate, data: DataSummary) -> None:
    """Refuse what cannot be made or scored.

    Args:
        request: Which file, and the images.
        candidate: What the network is.
        data: The data set of the study.

    Raises:
        InputError: The candidate has other bits, or the images are not the study's, or none can score the file.
    """
    require_int8(candidate, request.kind)
    found = request.data.source
    if found.fingerprint != data.fingerprint:
        raise InputError(
            f"must be the data set of the study, {data.fingerprint}", where="vitsearch export", field="--int8",
            value=found.fingerprint, remedy="put the images back as they were, or leave --int8 out",
        )  # fmt: skip
    if not len(found.val):
        raise InputError(
            "needs validation images to score the file on", where="vitsearch export", field="--int8",
            value=0, remedy="leave --int8 out",
        )  # fmt: skip


def write_int8(request: Int8Request, candidate: Candidate, model: VisionTransformer, folder: Path) -> Int8File:
    """Make the file in ``folder`` and score it on the validation split.

    Args:
        request: Which file, and the images.
        candidate: What the network is; of 8 bits.
        model: The network with its trained weights, in evaluation mode.
        folder: Where the file appears.

    Raises:
        ExportError: The file's outputs are not finite.
    """
    right = agreeing = total = 0
    with tempfile.TemporaryDirectory() as work:  # the float file it is made from is no part of a bundle
        file = MAKERS[RUNTIMES[RUNTIME_OF[request.kind]].file](model, candidate, Path(work), request.data)
        run = OnnxModel(file)
        for images_BCHW, labels_B in sample_images(request.data).batches(BATCH_SIZE):
            logits_BC = run(images_BCHW)
            with torch.inference_mode():
                simulated_B = model(torch.from_numpy(images_BCHW)).argmax(dim=1).numpy()
            if not torch.from_numpy(logits_BC).isfinite().all():
                raise ExportError(f"the outputs of {INT8_FILE} are not finite; choose another model")
            right += int((logits_BC.argmax(axis=1) == labels_B).sum())
            agreeing += int((logits_BC.argmax(axis=1) == simulated_B).sum())
            total += len(labels_B)
        shutil.copyfile(file, folder / INT8_FILE)
    content = (folder / INT8_FILE).read_bytes()
    return Int8File(
        kind=request.kind,
        sha256=hashlib.sha256(content).hexdigest(),
        file_size_mb=len(content) / 1e6,
        images=total,
        accuracy_val=right / total,
        agreement=agreeing / total,
    )
