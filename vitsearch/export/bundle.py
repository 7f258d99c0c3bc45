"""Reading a bundle: nothing in its folder is trusted, nothing in it is executed."""

from __future__ import annotations

import dataclasses
import hashlib
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from vitsearch.candidate import Candidate, load_candidate
from vitsearch.compress import assemble
from vitsearch.config import load_json, parse
from vitsearch.errors import ExportError, InputError
from vitsearch.export.contents import (
    INT8_FILE,
    METRICS_FILE,
    NEEDED_FILES,
    ONNX_FILE,
    PREPROCESS_FILE,
    BundleMetrics,
    Prediction,
    Preprocess,
)
from vitsearch.export.images import Images, pixels_of
from vitsearch.models import VisionTransformer
from vitsearch.onnx import OnnxModel
from vitsearch.train.augment import normalize
from vitsearch.train.data.arrays import ImageArray
from vitsearch.trial import CANDIDATE_FILE, WEIGHTS_FILE

AGAIN = "export the bundle again, or copy it again as a whole"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Bundle:
    """An exported model.

    Attributes:
        folder: Where it lies.
        candidate: What the network is.
        preprocess: Its input and its classes.
        metrics: What is known about it.
        model: The network in evaluation mode on the CPU; normalised images (B, C, H, W) to logits (B, classes).
    """

    folder: Path
    candidate: Candidate
    preprocess: Preprocess
    metrics: BundleMetrics
    model: VisionTransformer

    def predict(self, images: Images, *, batch_size: int = 64) -> list[Prediction]:
        """Classify images.

        Args:
            images: A file, a Pillow image, uint8 pixels of shape (H, W), (H, W, C) or (N, H, W, C), or a list of
                these. They are resized and cropped as in training.
            batch_size: Images of one forward pass.

        Returns:
            One prediction for each image, in order.

        Raises:
            InputError: Something is no image.
            ExportError: The network's outputs are not finite.
        """
        pixels_NHWC = pixels_of(images, self.preprocess)
        predictions: list[Prediction] = []
        with torch.inference_mode():
            for start in range(0, len(pixels_NHWC), batch_size):
                logits_BC = self.model(network_input(pixels_NHWC[start : start + batch_size], self.preprocess))
                if not logits_BC.isfinite().all():
                    raise ExportError(f"the outputs of {self.folder / WEIGHTS_FILE} are not finite")
                for row in logits_BC.softmax(dim=-1, dtype=torch.float64).tolist():
                    label = max(range(len(row)), key=row.__getitem__)
                    name = self.preprocess.class_names[label]
                    predictions.append(
                        Prediction(label=label, class_name=name, probability=row[label], probabilities=tuple(row))
                    )
        return predictions

    @cached_property
    def onnx(self) -> OnnxModel:
        """``model.onnx``, loaded on first use; normalised images (B, C, H, W) to logits (B, classes).

        Raises:
            InputError: The file is missing or is not the one that was checked at export.
            ExportError: ONNX Runtime does not take it.
        """
        path = checked_file(self.folder, ONNX_FILE)
        _require_sha256(path, path.read_bytes(), self.metrics.onnx_sha256)
        return OnnxModel(path)

    @cached_property
    def onnx_int8(self) -> OnnxModel | None:
        """``model.int8.onnx``, loaded on first use; None where the bundle was exported without one.

        Raises:
            InputError: The file is missing or is not the one that was scored at export.
            ExportError: ONNX Runtime does not take it.
        """
        if self.metrics.int8 is None:
            return None
        path = checked_file(self.folder, INT8_FILE)
        _require_sha256(path, path.read_bytes(), self.metrics.int8.sha256)
        return OnnxModel(path)


def load(path: str | Path) -> Bundle:
    """Read a bundle that ``vitsearch export`` wrote.

    Raises:
        InputError: A file is missing, leads out of the folder, is damaged, or does not fit the others.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(
            "must be the folder of a bundle",
            where=str(folder),
            remedy="make one with: vitsearch export DIR --out BUNDLE",
        )
    files = {name: checked_file(folder, name) for name in NEEDED_FILES}
    metrics = parse(BundleMetrics, load_json(files[METRICS_FILE]), where=str(files[METRICS_FILE]))
    candidate = load_candidate(files[CANDIDATE_FILE])
    if candidate.hash != metrics.candidate_hash:
        raise InputError(
            f"must be the candidate that {METRICS_FILE} speaks of, {metrics.candidate_hash}",
            where=str(files[CANDIDATE_FILE]), value=candidate.hash, remedy=AGAIN,
        )  # fmt: skip
    preprocess = parse(Preprocess, load_json(files[PREPROCESS_FILE]), where=str(files[PREPROCESS_FILE]))
    if misfit := preprocess.misfit(candidate):
        raise InputError(misfit, where=str(files[PREPROCESS_FILE]), remedy=AGAIN)
    model = load_weights(candidate, files[WEIGHTS_FILE], metrics.weights_sha256)
    return Bundle(folder=folder, candidate=candidate, preprocess=preprocess, metrics=metrics, model=model)


def load_weights(candidate: Candidate, path: Path, sha256: str) -> VisionTransformer:
    """The candidate's network with the weights of a file, once the file has proved to be what it should.

    The network is laid out without memory first, so a candidate that claims to be huge costs nothing.

    Raises:
        InputError: The checksum differs, or the tensors are not the candidate's.
    """
    content = path.read_bytes()
    _require_sha256(path, content, sha256)
    try:
        state = load_tensors(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"must be a whole safetensors file ({error})", where=str(path), remedy=AGAIN) from error
    with torch.device("meta"):
        model = assemble(candidate, state)
    wrong = sorted(_signature(model.state_dict()) ^ _signature(state))
    if wrong:
        raise InputError(
            f"must hold exactly the tensors of {CANDIDATE_FILE}, but differs in {wrong[0][0]!r} "
            f"and {len({name for name, *_ in wrong}) - 1} others",
            where=str(path), remedy=AGAIN,
        )  # fmt: skip
    model.load_state_dict(state, assign=True)
    return model.eval()


def network_input(images_NHWC: ImageArray, preprocess: Preprocess) -> Tensor:
    """Normalised float32 (N, C, H, W), by the arithmetic of training."""
    images_NCHW = torch.from_numpy(images_NHWC.copy()).permute(0, 3, 1, 2).contiguous()
    return normalize(
        images_NCHW,
        torch.tensor(preprocess.mean, dtype=torch.float32),
        torch.tensor(preprocess.std, dtype=torch.float32),
    )


def checked_file(folder: Path, name: str) -> Path:
    """A regular file inside the folder.

    Raises:
        InputError: It is missing, not a regular file, or a link that leads elsewhere.
    """
    path = folder / name
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a link to itself
        raise InputError("the bundle lacks this file", where=str(path), remedy=AGAIN) from error
    if not real.is_relative_to(folder.resolve()):
        raise InputError("must not be a link out of the bundle", where=str(path), remedy="copy the file itself")
    if not real.is_file():
        raise InputError("must be a regular file", where=str(path), remedy=AGAIN)
    return path


def _require_sha256(path: Path, content: bytes, expected: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise InputError(
            f"must have the checksum that {METRICS_FILE} names, {expected[:16]}…: the file was damaged or changed",
            where=str(path), value=f"{found[:16]}…", remedy=AGAIN,
        )  # fmt: skip


def _signature(state: dict[str, Tensor]) -> set[tuple[str, tuple[int, ...], str]]:
    return {(name, tuple(value.shape), str(value.dtype)) for name, value in state.items()}
