"""The Ray actor that measures."""

from __future__ import annotations

import fcntl
import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vitsearch.artifacts import workspace
from vitsearch.messages import ProfileRequest

if TYPE_CHECKING:
    from vitsearch.train.tensors import TensorData


class Profiler:
    """A persistent process on the target's node that measures one model at a time.

    Args:
        images_NHWC: Decoded images, shared through the object store; None measures on noise.
        labels_N: Their classes.
        meta: The rest of the data set as JSON-able fields of ``ImageData``.
    """

    def __init__(
        self,
        images_NHWC: npt.NDArray[np.uint8] | None = None,
        labels_N: npt.NDArray[np.int64] | None = None,
        meta: dict[str, object] | None = None,
    ) -> None:
        self._arrays = images_NHWC, labels_N, meta or {}

    def machine(self) -> str:
        """Host name of the target's node."""
        return platform.node()

    def run(self, request_json: str) -> str:
        """Measure a trained model; returns a profile as JSON.

        Raises:
            Exception: Whatever went wrong; the executor reports it with the measurement.
        """
        from vitsearch.profile import run_profile
        from vitsearch.trial import load_model

        request = ProfileRequest.model_validate_json(request_json)
        with workspace(request.artifact_dir) as place:
            model = load_model(request.candidate, place.folder)
            data = self._data()
            here = request.model_copy(update={"artifact_dir": str(place.folder)})
            with machine_to_itself():
                return run_profile(here, model, data).model_dump_json()

    def _data(self) -> TensorData | None:
        from vitsearch.train.data import ImageData
        from vitsearch.train.tensors import TensorData

        images_NHWC, labels_N, meta = self._arrays
        if images_NHWC is None or labels_N is None:
            return None
        import torch

        source = ImageData(images_NHWC=images_NHWC, labels_N=labels_N, **meta)  # type: ignore[arg-type]
        return TensorData(source, torch.device("cpu"))


@contextmanager
def machine_to_itself() -> Iterator[None]:
    """Wait until no other study measures on this machine, and keep others waiting meanwhile.

    A lock on a file: it holds across studies, clusters and users, and the kernel releases it whatever way the
    process ends.
    """
    path = Path(tempfile.gettempdir()) / "vitsearch-measuring.lock"
    try:
        file = os.open(path, os.O_RDONLY)  # creating is refused in /tmp where the file is another user's
    except FileNotFoundError:
        file = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
