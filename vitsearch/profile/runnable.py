"""What a runtime is asked for and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from vitsearch.candidate import Candidate
from vitsearch.config import TargetSpec
from vitsearch.models import VisionTransformer
from vitsearch.train.evaluate import normalized_batches
from vitsearch.train.tensors import TensorData

Images = npt.NDArray[np.float32]
CALIBRATION_IMAGES = 128
CALIBRATION_BATCH = 32
SEED = 0


class Runnable(NamedTuple):
    """A model that is ready to run.

    Attributes:
        run: From normalised images (B, C, H, W) to logits (B, classes); returns when the work is done.
        file: What the runtime loads.
        name: The runtime and its version.
        dtype: The number format it computes in.
    """

    run: Callable[[Images], npt.NDArray[np.float32]]
    file: Path
    name: str
    dtype: str = "float32"


class Runtime(Protocol):
    """Makes a trained model runnable."""

    def __call__(
        self,
        model: VisionTransformer,
        candidate: Candidate,
        target: TargetSpec,
        folder: Path,
        data: TensorData | None,
        /,
    ) -> Runnable:
        """Prepare.

        Args:
            model: The candidate's network with its trained weights, in evaluation mode on the CPU.
            candidate: What the network is.
            target: Threads and batch.
            folder: Holds the weights; files the runtime needs are made here, once.
            data: The images, where they are at hand.

        Raises:
            ValueError: The runtime cannot run this model, or not without images.
        """
        ...


def calibration_batches(data: TensorData) -> list[Images]:
    """Normalised training images that set ranges; the same ones each time."""
    train = data.source.train
    chosen = np.random.default_rng(SEED).choice(train, size=min(CALIBRATION_IMAGES, len(train)), replace=False)
    return [images.cpu().numpy() for images, _ in normalized_batches(data, chosen, CALIBRATION_BATCH)]


def validation_batches(data: TensorData, batch_size: int) -> Iterator[tuple[Images, npt.NDArray[np.int64]]]:
    """Normalised validation images and their classes; the last batch may be short."""
    for images, labels in normalized_batches(data, data.source.val, batch_size):
        yield images.cpu().numpy(), labels.cpu().numpy()
