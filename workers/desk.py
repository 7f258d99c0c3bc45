"""Where models are made into files for targets: one exporter on the driver's node, replaced when it dies."""

from __future__ import annotations

from typing import Any

import ray

from vitsearch.messages import ProfileRequest
from workers.deaths import DEATHS
from workers.exporter import Exporter
from workers.resources import TARGET_SHARE, place_of_driver
from workers.shared_data import SharedData


class Desk:
    """Starts an exporter when one is needed.

    Args:
        data: The images in the object store.
    """

    def __init__(self, data: SharedData) -> None:
        self._data = data
        self._exporter: Any = None
        self._last: Any = None  # reference of its last answer

    def open(self) -> None:
        """Start the exporter, which takes seconds, if there is none."""
        if self._exporter is None:
            here = {"num_cpus": 0, "resources": {place_of_driver(): TARGET_SHARE}}
            data = self._data
            self._exporter = (
                ray.remote(Exporter).options(**here).remote(data.images_ref, data.labels_ref, data.meta)
            )

    def export(self, request: ProfileRequest) -> Any:
        """Begin to make what a target loads; returns its reference."""
        if self._last is not None and has_died(self._last):
            self._exporter = None
        self.open()
        self._last = self._exporter.run.remote(request.model_dump_json())
        return self._last

    def close(self) -> None:
        """Kill the exporter; what it was making is lost."""
        if self._exporter is not None:
            ray.kill(self._exporter)
        self._exporter = self._last = None


def has_died(answer: Any) -> bool:
    """Whether the process died that was to answer; one that has not answered has not."""
    try:
        ray.get(answer, timeout=0)
    except DEATHS:
        return True
    except ray.exceptions.RayError:  # not yet, or it raised
        return False
    return False
