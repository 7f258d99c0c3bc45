"""The Ray actor that measures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vitsearch.messages import ProfileRequest
from vitsearch.scratch import scratch_folder
from workers.turns import machine_to_itself

if TYPE_CHECKING:
    from workers.exporter import Exported


class Profiler:
    """A persistent process on the target's node that measures one model at a time.

    It is sent the model and needs neither the study's folder nor the code that trains.

    Args:
        images_NHWC: Validation images, shared through the object store; None measures on noise.
        labels_N: Their classes.
        mean: Mean of each channel, on a scale of 0 to 1.
        std: Standard deviation likewise.
    """

    def __init__(
        self,
        images_NHWC: npt.NDArray[np.uint8] | None = None,
        labels_N: npt.NDArray[np.int64] | None = None,
        mean: tuple[float, ...] = (),
        std: tuple[float, ...] = (),
    ) -> None:
        self._arrays = images_NHWC, labels_N, mean, std

    def facts(self) -> str:
        """What the target's machine can measure, as JSON."""
        from vitsearch.profile.facts import machine_facts

        return machine_facts().model_dump_json()

    def run(self, request_json: str, exported: Exported) -> str:
        """Measure a trained model; returns a profile as JSON.

        Raises:
            TimeoutError: Others measure on the machine; ask again.
            Exception: Whatever else went wrong; the executor reports it with the measurement.
        """
        from vitsearch.profile import SampleImages, run_profile

        request = ProfileRequest.model_validate_json(request_json)
        images_NHWC, labels_N, mean, std = self._arrays
        images = None
        if images_NHWC is not None and labels_N is not None:
            images = SampleImages(images_NHWC=images_NHWC, labels_N=labels_N, mean=mean, std=std)
        with scratch_folder() as folder:
            files = {kind: folder / name for kind, (name, _) in exported.files.items()}
            for kind, (_, content) in exported.files.items():
                content.tofile(files[kind])
            with machine_to_itself() as alone:
                return run_profile(request, files, images, exported.errors, contended=not alone).model_dump_json()
