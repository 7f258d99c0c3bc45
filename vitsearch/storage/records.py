"""Rows as typed objects."""

from __future__ import annotations

from typing import Literal

from vitsearch.candidate import Candidate
from vitsearch.config import JobSpec, Spec, Value
from vitsearch.cost import Cost
from vitsearch.messages import Profile, TrialFailure, TrialResult

TrialState = Literal["asked", "leased", "result", "told"]
TrialKind = Literal["evaluate", "rejected", "duplicate"]
StudyState = Literal["created", "running", "interrupted", "finished"]


class DataSummary(Spec):
    """What the study knows about its data without loading it.

    Attributes:
        fingerprint: Checksum of images, labels and split.
        class_names: Classes in label order.
        in_chans: Channels.
        image_size: Side in pixels.
        mean: Per channel, on a 0..1 scale.
        std: Per channel.
        num_train: Training images.
        num_val: Validation images.
        num_test: Test images.
        chance_accuracy: Accuracy of always naming the most frequent class.
        skipped: Broken files left out.
    """

    fingerprint: str
    class_names: tuple[str, ...]
    in_chans: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_train: int
    num_val: int
    num_test: int
    chance_accuracy: float
    skipped: tuple[str, ...] = ()


class StudyRecord(Spec):
    """One study.

    Attributes:
        id: Row id.
        name: Unique within its database.
        job: The job as it runs.
        state: Where the study stands.
        data: The data set, once it has been read.
        elapsed_s: Seconds of search so far, over all drivers.
    """

    id: int
    name: str
    job: JobSpec
    state: StudyState
    data: DataSummary | None
    elapsed_s: float


class TrialRecord(Spec):
    """One trial with everything stored about it.

    Attributes:
        number: Position among the study's asks, from 0.
        state: Its step of life.
        kind: ``evaluate``: trained; ``rejected``: broke a constraint on known cost; ``duplicate``: its candidate
            was trained already.
        candidate: The candidate.
        cost: Its closed-form cost.
        draw: The sampler's values.
        sampler_state: Optuna's system attributes of the trial, as JSON text.
        note: Why it was rejected.
        unmeasured: Why a measurement that an objective, a constraint or EER needs has failed.
        same_as: The trial a duplicate repeats.
        attempts: Tries that a worker's loss ended, and the running one.
        worker: Who trains it.
        outcome: Result or failure, once stored.
        figures: Every metric by its key, once stored.
        profiles: Measurements by target name.
        final: The full-length retraining, for winners.
        asked_at: Seconds since the epoch.
        finished_at: Seconds since the epoch.
    """

    number: int
    state: TrialState
    kind: TrialKind
    candidate: Candidate
    cost: Cost
    draw: dict[str, Value]
    sampler_state: str = "{}"
    note: str = ""
    unmeasured: str = ""
    same_as: int | None = None
    attempts: int = 0
    worker: str = ""
    outcome: TrialResult | TrialFailure | None = None
    figures: dict[str, float] = {}
    profiles: dict[str, Profile] = {}
    final: TrialResult | TrialFailure | None = None
    asked_at: float = 0.0
    finished_at: float | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the trial was trained and has figures."""
        return isinstance(self.outcome, TrialResult)


class KnownTrials:
    """Trials as somebody has read them last, so that only those that have changed since are read again.

    Attributes:
        trials: By number.
        marks: Of each, what is different in the database once it has changed.
    """

    def __init__(self) -> None:
        self.trials: dict[int, TrialRecord] = {}
        self.marks: dict[int, tuple[object, ...]] = {}


class OutboxRecord(Spec):
    """One undelivered message to MLflow.

    Attributes:
        id: Order of delivery.
        kind: What happened.
        payload: JSON text.
    """

    id: int
    kind: str
    payload: str
