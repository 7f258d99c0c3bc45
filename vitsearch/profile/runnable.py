"""What a runtime is given and what it gives."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from vitsearch.candidate import Candidate
from vitsearch.config import TargetSpec

Images = npt.NDArray[np.float32]
MOST_BATCHES = 256  # more than any number of repeats is worth


@dataclass(frozen=True, kw_only=True)
class Model:
    """A trained model as it arrives at a target.

    Attributes:
        file: What the runtime loads.
        candidate: What it is.
    """

    file: Path
    candidate: Candidate


class Runnable(NamedTuple):
    """A model that is ready to run.

    Attributes:
        run: From normalised images (B, C, H, W) to logits (B, classes); returns when the work is done.
        dtype: The number format it computes in.
        close: Undoes what loading has set for the process.
    """

    run: Callable[[Images], npt.NDArray[np.float32]]
    dtype: str = "float32"
    close: Callable[[], None] = lambda: None


class Runtime(Protocol):
    """Makes a model's file runnable."""

    def __call__(self, model: Model, target: TargetSpec, /) -> Runnable:
        """Load.

        Args:
            model: The file and what it is.
            target: Device, threads and batch.

        Raises:
            Exception: The runtime cannot run this model.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class SampleImages:
    """Validation images as a target gets them.

    Attributes:
        images_NHWC: uint8.
        labels_N: Their classes.
        mean: Mean of each channel, on a scale of 0 to 1.
        std: Standard deviation likewise.
    """

    images_NHWC: npt.NDArray[np.uint8]
    labels_N: npt.NDArray[np.int64]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalized(self, indices: npt.NDArray[np.int64]) -> Images:
        """float32 images (B, C, H, W), as training normalises them."""
        std = np.asarray(self.std, np.float32)
        scale, offset = 1 / (np.float32(255) * std), np.asarray(self.mean, np.float32) / std
        chosen = self.images_NHWC[indices].astype(np.float32) * scale - offset
        return np.ascontiguousarray(chosen.transpose(0, 3, 1, 2))

    def endless(self, batch_size: int) -> Iterator[Images]:
        """Batches without end, round and round."""
        count = len(self.images_NHWC)
        rounds = np.resize(np.arange(count), max(1, -(-count // batch_size)) * batch_size).reshape(-1, batch_size)
        return itertools.cycle([self.normalized(batch) for batch in rounds[:MOST_BATCHES]])

    def batches(self, batch_size: int) -> Iterator[tuple[Images, npt.NDArray[np.int64]]]:
        """Every image once, with its class; the last batch may be short."""
        for start in range(0, len(self.images_NHWC), batch_size):
            indices = np.arange(start, min(start + batch_size, len(self.images_NHWC)))
            yield self.normalized(indices), self.labels_N[indices]
