"""The Ray actor that trains: one trial at a time, while a second thread answers questions about it."""

from __future__ import annotations

import os
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vitsearch.candidate import Architecture
from vitsearch.config import DistillSpec, NetworkSpec, TrainSpec
from vitsearch.errors import VitsearchError, hide_passwords
from vitsearch.messages import EpochReport, TrialFailure, TrialRequest, WorkerReport
from workers.turns import AtWork

if TYPE_CHECKING:
    from vitsearch.models import VisionTransformer
    from vitsearch.train.distill import LiveAnswers, RememberedAnswers, TeacherAnswers


class Trainer:
    """A persistent worker process.

    ``run`` occupies one thread; ``report`` is answered by another, so the actor needs ``max_concurrency`` of at
    least 2. It rests, at its next batch, while something is measured on its machine.

    Args:
        images_NHWC: Decoded images, shared through the object store.
        labels_N: Their classes.
        meta: The rest of the data set as JSON-able fields of ``ImageData``.
        threads: Compute threads.
        device: ``cpu``, ``cuda`` or ``auto``.
        answers: What teachers have said, as ``learn_from`` takes it.
    """

    def __init__(
        self,
        images_NHWC: npt.NDArray[np.uint8],
        labels_N: npt.NDArray[np.int64],
        meta: dict[str, object],
        threads: int,
        device: str = "auto",
        *answers: npt.NDArray[Any],
    ) -> None:
        self._at_work = AtWork()
        with self._at_work:  # first of all: the imports below take seconds
            import torch

            from vitsearch.train.data import ImageData
            from vitsearch.train.tensors import TensorData

            torch.set_num_threads(threads)
            chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
            data = ImageData(images_NHWC=images_NHWC, labels_N=labels_N, **meta)  # type: ignore[arg-type]
            self._data = TensorData(data, torch.device(chosen))
            self._remembered: tuple[RememberedAnswers, ...] = ()
            self.learn_from(*answers)
        self._starts: dict[str, VisionTransformer] = {}
        self._teachers: dict[str, LiveAnswers] = {}
        self._reports: deque[EpochReport] = deque(maxlen=1000)

    def ping(self) -> int:
        """The process id; answers once the data is in place."""
        return os.getpid()

    def run(self, request_json: str) -> str:
        """Run a trial; returns its outcome as JSON."""
        with self._at_work:  # first of all: the imports below take seconds
            from vitsearch.trial import TrialContext, run_trial

            request = TrialRequest.model_validate_json(request_json)
            try:
                context = TrialContext(
                    data=self._data,
                    on_epoch=self._reports.append,
                    on_batch=self._at_work.give_way,
                    teachers=self._answers(request.train.distill),
                    inner_teacher=self._inner_teacher(request.train.distill),
                    start=self._start(request.train),
                )
            except (VitsearchError, OSError) as error:  # this node lacks what others may have
                return TrialFailure(
                    trial=request.trial,
                    stage="build",
                    failure="no_network",
                    message=hide_passwords(str(error)),
                    retryable=True,
                ).model_dump_json()
            return run_trial(request, context).model_dump_json()

    def report(self) -> str:
        """What has happened since the last call, as JSON."""
        epochs = []
        while self._reports:
            epochs.append(self._reports.popleft())
        return WorkerReport(epochs=tuple(epochs), rests=self._at_work.rests).model_dump_json()

    def fastest_autocast(self, architecture_json: str, batch_size: int) -> str:
        """Measure which number format trains fastest in this process."""
        with self._at_work:
            from vitsearch.train.autocast import fastest_autocast

            architecture = Architecture.model_validate_json(architecture_json)
            return fastest_autocast(architecture, batch_size, self._data.device)

    def teach(
        self, train_json: str, seed: int, epoch: int
    ) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.float16]]:
        """Ask the recipe's teacher about one epoch of batches; classes and log-probabilities, (1, N, T)."""
        with self._at_work:
            from vitsearch.train.batches import TrainingBatches
            from vitsearch.train.distill import remember

            spec = TrainSpec.model_validate_json(train_json)
            (teacher,) = spec.distill.teachers
            found = remember(
                self._live_teacher(teacher),
                TrainingBatches(self._data, spec),
                seed=seed,
                epochs=range(epoch, epoch + 1),
                num_classes=self._data.source.num_classes,
                top_k=spec.distill.top_k,
            )
        return found.classes_ENT, found.log_probs_ENT

    def learn_from(self, *answers: npt.NDArray[Any]) -> None:
        """Use what teachers have said from now on: of each its classes and their log-probabilities (E, N, T)."""
        from vitsearch.train.distill import RememberedAnswers

        self._remembered = tuple(
            RememberedAnswers(
                classes_ENT=classes, log_probs_ENT=log_probs, num_classes=self._data.source.num_classes
            )
            for classes, log_probs in zip(answers[::2], answers[1::2], strict=True)
        )

    def _answers(self, spec: DistillSpec) -> tuple[TeacherAnswers, ...]:
        from vitsearch.train.distill import CachedAnswers

        lives = [partial(self._live_teacher, teacher) for teacher in spec.teachers]
        if lives and spec.cache and self._remembered:
            return tuple(CachedAnswers(*pair) for pair in zip(self._remembered, lives, strict=True))
        return tuple(live() for live in lives)

    def _inner_teacher(self, spec: DistillSpec) -> LiveAnswers | None:
        return self._live_teacher(spec.teacher) if spec.inner_weights and spec.teacher is not None else None

    def _start(self, spec: TrainSpec) -> VisionTransformer | None:
        if spec.init == "random" or spec.pretrained is None:
            return None
        from vitsearch.export import load_start

        key = spec.pretrained.model_dump_json()
        if key not in self._starts:
            self._starts[key] = load_start(spec.pretrained).to(self._data.device)
        return self._starts[key]

    def _live_teacher(self, spec: NetworkSpec) -> LiveAnswers:
        from vitsearch.export import load_teacher

        key = spec.model_dump_json()
        if key not in self._teachers:
            self._teachers[key] = load_teacher(spec, self._data)
        return self._teachers[key]
