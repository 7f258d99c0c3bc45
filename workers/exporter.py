"""The Ray actor that turns trained models into the files that targets load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vitsearch.artifacts import workspace
from vitsearch.messages import ProfileRequest
from workers.turns import AtWork

if TYPE_CHECKING:
    from vitsearch.train.tensors import TensorData


@dataclass(frozen=True, kw_only=True)
class Exported:
    """Files on their way to a target.

    Attributes:
        files: Name and content of each, by its kind.
        errors: Why a kind could not be made.
    """

    files: dict[str, tuple[str, npt.NDArray[np.uint8]]]
    errors: dict[str, str]


class Exporter:
    """A process on the driver's node, which has the code that trains; targets need none of it.

    It waits while something is measured there.

    Args:
        images_NHWC: Decoded images, shared through the object store.
        labels_N: Their classes.
        meta: The rest of the data set as JSON-able fields of ``ImageData``.
    """

    def __init__(
        self, images_NHWC: npt.NDArray[np.uint8], labels_N: npt.NDArray[np.int64], meta: dict[str, object]
    ) -> None:
        self._arrays = images_NHWC, labels_N, meta

    def run(self, request_json: str) -> Exported:
        """The files that the runtimes of a request load and that are not measured yet.

        Raises:
            Exception: The trained model is not there; the executor reports it with the measurement.
        """
        request = ProfileRequest.model_validate_json(request_json)
        with AtWork():  # first of all: the imports below take seconds
            from vitsearch.profile.choice import able_runtimes, runtime_of
            from vitsearch.profile.files import files_for
            from vitsearch.trial import CANDIDATE_FILE, WEIGHTS_FILE, load_model

            known = {runtime_of(one) for one in request.known}
            runtimes = [name for name in able_runtimes(request.target, request.candidate) if name not in known]
            with workspace(request.artifact_dir, [CANDIDATE_FILE, WEIGHTS_FILE]) as place:
                model = load_model(request.candidate, place.folder)
                made, errors = files_for(runtimes, model, request.candidate, place.folder, self._data())
                files = {kind: (file.name, np.fromfile(file, np.uint8)) for kind, file in made.items()}
        return Exported(files=files, errors=errors)

    def _data(self) -> TensorData:
        import torch

        from vitsearch.train.data import ImageData
        from vitsearch.train.tensors import TensorData

        images_NHWC, labels_N, meta = self._arrays
        source = ImageData(images_NHWC=images_NHWC, labels_N=labels_N, **meta)  # type: ignore[arg-type]
        return TensorData(source, torch.device("cpu"))
