"""From a trained network to the files that runtimes load."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from vitsearch.candidate import Candidate
from vitsearch.compress.saved import WEIGHTS_FILE
from vitsearch.config import FILES as TABLE
from vitsearch.config import RUNTIMES
from vitsearch.config.named import Imported
from vitsearch.models import VisionTransformer
from vitsearch.onnx import export_onnx
from vitsearch.profile.choice import one_line
from vitsearch.profile.runnable import Images, SampleImages
from vitsearch.train.evaluate import normalized_batches
from vitsearch.train.tensors import TensorData

ONNX_FILE = "model.onnx"
CALIBRATION_IMAGES = 128
CALIBRATION_BATCH = 32
SEED = 0


class MakeFile(Protocol):
    """Makes what a runtime loads."""

    def __call__(
        self, model: VisionTransformer, candidate: Candidate, folder: Path, data: TensorData | None, /
    ) -> Path:
        """Make the file, unless it is there.

        Args:
            model: The candidate's network with its trained weights, in evaluation mode on the CPU.
            candidate: What the network is.
            folder: Holds the weights; the file appears here.
            data: The images, where they are at hand.

        Raises:
            ValueError: There is no such file of this model, or not without images.
        """
        ...


MAKERS: Mapping[str, MakeFile] = Imported(TABLE)


def files_for(
    runtimes: Iterable[str], model: VisionTransformer, candidate: Candidate, folder: Path, data: TensorData | None
) -> tuple[dict[str, Path], dict[str, str]]:
    """The file that each runtime loads.

    Args:
        runtimes: Their names.
        model: The candidate's network with its trained weights, in evaluation mode on the CPU.
        candidate: What the network is.
        folder: Holds the weights; files appear here, once.
        data: The images, where they are at hand.

    Returns:
        The files by their kind, and what went wrong with the others.

    Raises:
        OSError: They cannot be written now, as where a disk is full, which is no fault of the model.
    """
    made: dict[str, Path] = {}
    errors: dict[str, str] = {}
    for kind in dict.fromkeys(RUNTIMES[name].file for name in runtimes):
        try:
            made[kind] = MAKERS[kind](model, candidate, folder, data)
        except Exception as error:
            if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                raise
            errors[kind] = one_line(error)  # one file's failure is no reason to lose the others' figures
    return made, errors


def weights_file(model: VisionTransformer, candidate: Candidate, folder: Path, data: TensorData | None) -> Path:
    """The weights as they are; the candidate tells what they belong to."""
    del model, candidate, data
    return folder / WEIGHTS_FILE


def onnx_file(model: VisionTransformer, candidate: Candidate, folder: Path, data: TensorData | None) -> Path:
    """The network in float32, with its bits simulated."""
    del candidate, data
    return export_once(model, folder / ONNX_FILE)


def export_once(model: VisionTransformer, file: Path) -> Path:
    """Export a network, unless its file is there."""
    if not file.exists():
        a = model.architecture
        export_onnx(model, file, in_chans=a.in_chans, image_size=a.image_size)
    return file


def calibration_batches(data: TensorData) -> list[Images]:
    """Normalised training images that set ranges; the same ones each time."""
    train = data.source.train
    chosen = np.random.default_rng(SEED).choice(train, size=min(CALIBRATION_IMAGES, len(train)), replace=False)
    return [images.cpu().numpy() for images, _ in normalized_batches(data, chosen, CALIBRATION_BATCH)]


def sample_images(data: TensorData) -> SampleImages:
    """The validation split, as a target gets it."""
    source = data.source
    return SampleImages(
        images_NHWC=source.images_NHWC[source.val], labels_N=source.labels_N[source.val],
        mean=source.mean, std=source.std,
    )  # fmt: skip
