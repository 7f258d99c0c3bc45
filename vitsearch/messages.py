"""What crosses between processes, of driver, workers and people who watch: JSON in, JSON out."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field, field_validator

from vitsearch.candidate import Candidate
from vitsearch.config import EvaluateSpec, Spec, TargetSpec, TrainSpec
from vitsearch.errors import hide_passwords

WIDE_SPREAD = 0.2  # of an interquartile range relative to its median: calls were disturbed
Stage = Literal["data", "build", "train", "compress", "evaluate", "profile", "worker"]
Split = Literal["val", "test"]


CHECKPOINT_FILES = "epoch*.pt"
"""What a trial goes on from, in its ``artifact_dir``."""


class TrialRequest(Spec):
    """Everything a worker needs for one evaluation; the images travel apart.

    Attributes:
        trial: Number of the trial within its study.
        attempt: 1 for the first try, one more after each lost worker.
        candidate: What to build.
        train: The recipe, with ``autocast`` already chosen.
        evaluate: How to score.
        seed: Seed of initialisation, order and augmentation.
        data_seed: Seed of order and augmentation where trials must see the same batches; ``seed`` otherwise.
        split: Split that is scored.
        data_fingerprint: The data set the worker must hold.
        artifact_dir: Folder for weights and checkpoints, which stay until who asked has stored the result: until
            then a lost answer costs no training.
        claim: What the driver has written there as its claim for this attempt, where an earlier one may have been;
            whoever finds another one leaves the files alone.
        accuracy_to_beat: Best accuracy of a model that is at least as good in every other objective; training may
            end early when it is out of reach. None while there is no such model.
    """

    trial: int
    attempt: int = 1
    candidate: Candidate
    train: TrainSpec
    evaluate: EvaluateSpec = EvaluateSpec()
    seed: int
    data_seed: int | None = None
    split: Split = "val"
    data_fingerprint: str
    artifact_dir: str
    claim: str = ""
    accuracy_to_beat: float | None = None


class EpochReport(Spec):
    """Progress of one training epoch.

    Attributes:
        trial: Number of the trial.
        epoch: Finished epochs.
        epochs: Planned epochs.
        train_loss: Mean loss of the epoch.
        accuracy: Share of validation images classified correctly; absent when not evaluated.
        learning_rate: At the end of the epoch.
        images_per_s: Training throughput of the epoch.
    """

    trial: int
    epoch: int
    epochs: int
    train_loss: float
    accuracy: float | None = None
    learning_rate: float
    images_per_s: float


class WorkerReport(Spec):
    """What a worker tells of its trial.

    Attributes:
        epochs: Those finished since its last report.
        rests: Whether it waits because something is measured on its machine.
    """

    epochs: tuple[EpochReport, ...] = ()
    rests: bool = False


class Conditions(Spec):
    """Under what conditions a figure was measured.

    Attributes:
        target: Name of the target.
        runtime: ``pytorch 2.15.0``, ``onnxruntime 1.31.1``.
        device: Processor or accelerator name.
        dtype: Number format the runtime computed in.
        batch_size: Images per call.
        threads: Compute threads.
        warmup: Calls before the first measured one.
        repeats: Measured calls.
        contended: Whether trainers ran on the node meanwhile.
        inputs: What was computed: ``noise``, or ``validation images``, where how many tokens stay is real.
        rounds: How often all calls were repeated because they varied widely; the steadiest round counts.
        throttled: Whether clocks were lowered for heat or power meanwhile; None where the platform does not tell.
        machine: Fingerprint of the machine's hardware.
        measured_by: Target that measured in this one's place; empty where it was this one.
        reused: Whether the figure comes from an earlier measurement of the same model on the same hardware.
    """

    target: str
    runtime: str
    device: str
    dtype: str
    batch_size: int
    threads: int
    warmup: int
    repeats: int
    contended: bool
    inputs: Literal["noise", "validation images"] = "noise"
    rounds: int = 1
    throttled: bool | None = None
    machine: str = ""
    measured_by: str = ""
    reused: bool = False


class Profile(Spec):
    """One measurement of one model on one target.

    Attributes:
        latency_ms_p50: Median time of one call in milliseconds.
        latency_ms_p95: 95th percentile.
        latency_ms_spread: Interquartile range relative to the median.
        images_per_s: Images per second at the median.
        peak_memory_mb: Peak resident memory that running the model added.
        file_size_mb: Size of the file the runtime loads.
        conditions: How it was measured.
        energy_mj: Millijoules of one image, of all that the platform's counter covers; None where there is none.
        accuracy: Share of the validation images that the runtime itself classifies correctly, where its arithmetic
            is not the trial's.
        others: Slower runtimes on the same target.
        failed: Why a runtime of the target could not be measured, by its name.
    """

    latency_ms_p50: float
    latency_ms_p95: float
    latency_ms_spread: float
    images_per_s: float
    peak_memory_mb: float
    file_size_mb: float
    conditions: Conditions
    energy_mj: float | None = None
    accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    others: tuple[Profile, ...] = ()
    failed: dict[str, str] = {}

    @property
    def notes(self) -> list[str]:
        """What a reader must know about the figures beside their conditions, in words."""
        c = self.conditions
        notes = [] if self.energy_mj is None else [f"{self.energy_mj:.3g} mJ per image"]
        if self.latency_ms_spread > WIDE_SPREAD:
            notes.append(
                f"calls varied by {100 * self.latency_ms_spread:.0f} % in the steadiest of {c.rounds} rounds"
            )
        if c.throttled:
            notes.append("clocks were lowered for heat or power meanwhile")
        if c.measured_by:
            notes.append(f"measured by {c.measured_by} in its place")
        if c.reused:
            notes.append("taken from an earlier measurement on equal hardware")
        return notes


class ProfileRequest(Spec):
    """A measurement to make.

    Attributes:
        trial: Number of the trial.
        artifact_dir: Folder with the trained weights and the candidate.
        candidate: What the weights belong to.
        target: Where and how to measure.
        known: Figures that need no measurement any more, one for a runtime.
    """

    trial: int
    artifact_dir: str
    candidate: Candidate
    target: TargetSpec
    known: tuple[Profile, ...] = ()


class MeasuredCost(Spec):
    """What a trained network costs, where its candidate alone does not tell.

    Attributes:
        num_params: Parameters.
        num_macs: MACs of one image; the mean over the scored split where images differ.
        num_macs_p95: What 95 % of its images do not exceed; None where images do not differ.
        bits: (weight_bits + activation_bits) / 2.
        weight_bits: Mean bits of a weight.
        activation_bits: Mean bits of an activation operand.
        size_mb: Stored size in MB of 10^6 bytes.
        tokens: Mean tokens entering block 1, ..., depth, and leaving the last.
    """

    num_params: int
    num_macs: int
    num_macs_p95: int | None = None
    bits: float
    weight_bits: float
    activation_bits: float
    size_mb: float
    tokens: tuple[int | float, ...]


class TrialResult(Spec):
    """What one evaluation found.

    Attributes:
        trial: Number of the trial.
        accuracy: Share of the scored split classified correctly, 0 to 1.
        loss: Mean cross-entropy on that split.
        dense_accuracy: Validation accuracy before anything was compressed.
        split: The scored split.
        epochs_run: Epochs trained, fine-tuning excluded.
        stopped_early: Whether training ended before its planned length.
        train_s: Seconds of training.
        total_s: Seconds of the whole evaluation.
        num_params: Parameters counted on the trained model.
        measured: Its cost, where that was not known exactly before.
        weights_file: File inside ``artifact_dir``.
        weights_sha256: Its checksum.
        device: What it was trained on.
        autocast: Number format of training.
    """

    kind: Literal["result"] = "result"
    trial: int
    accuracy: Annotated[float, Field(ge=0, le=1)]
    loss: float
    dense_accuracy: Annotated[float, Field(ge=0, le=1)]
    split: Split = "val"
    epochs_run: int
    stopped_early: bool = False
    train_s: float
    total_s: float
    num_params: int
    measured: MeasuredCost | None = None
    weights_file: str = ""
    weights_sha256: str = ""
    device: str = "cpu"
    autocast: str = "fp32"


class TrialFailure(Spec):
    """Why one evaluation has no figures.

    Attributes:
        trial: Number of the trial.
        stage: Where it failed.
        failure: A short stable word: ``nan_loss``, ``out_of_memory``, ``worker_lost``.
        message: A sentence for people; passwords in it are hidden, as it is kept, copied and shown.
        retryable: Whether the candidate itself is innocent.
    """

    kind: Literal["failure"] = "failure"
    trial: int
    stage: Stage
    failure: str
    message: str
    retryable: bool = False

    @field_validator("message")
    @classmethod
    def _without_passwords(cls, value: str) -> str:
        return hide_passwords(value)


Outcome = Annotated[TrialResult | TrialFailure, Field(discriminator="kind")]


class WorkerProgress(Spec):
    """One worker and its trial.

    Attributes:
        worker: Its name.
        trial: Number of the trial.
        candidate: The candidate in a few words.
        epoch: Epochs finished.
        epochs: Epochs in all.
        accuracy: Validation accuracy after the last epoch that measured it.
    """

    worker: str
    trial: int
    candidate: str
    epoch: int
    epochs: int
    accuracy: float | None = None


class Progress(Spec):
    """A search at one moment.

    Attributes:
        trials: Candidates to train in all.
        ended: Candidates done, failed or infeasible.
        front: Members of the front.
        best_accuracy: The best of the front; None before there is one.
        hypervolume: Volume the front dominates; None before there is one.
        rejected: Candidates turned away by a constraint before training.
        duplicate: Candidates asked for again.
        failed: Candidates that failed.
        infeasible: Candidates that break a constraint.
        elapsed_s: Search time used.
        left_s: Search time to go at the pace so far, within the time limit; None before a trial has ended.
        waits_for: What measurements wait for, in words; empty while they do not wait.
        num_workers: Workers that train.
        workers: What the first of them train.
    """

    trials: int
    ended: int = 0
    front: int = 0
    best_accuracy: float | None = None
    hypervolume: float | None = None
    rejected: int = 0
    duplicate: int = 0
    failed: int = 0
    infeasible: int = 0
    elapsed_s: float = 0.0
    left_s: float | None = None
    waits_for: str = ""
    num_workers: int = 0
    workers: tuple[WorkerProgress, ...] = ()


class LiveState(Spec):
    """What a submitted search tells those who watch it.

    Attributes:
        study: Name of the study.
        step: What it is doing outside the trial loop; empty within.
        progress: Where the trial loop stands; None before its first round.
        browse_url: Page of the study in MLflow; empty where there is none that a browser opens.
        notice: Something that stays true, such as that it is being stopped.
        ended: Why the search ended; empty before.
        at: When this was written, in seconds since the epoch.
    """

    study: str
    step: str = ""
    progress: Progress | None = None
    browse_url: str = ""
    notice: str = ""
    ended: str = ""
    at: float = 0.0


class RuntimeFacts(Spec):
    """A library that executes models, as it is installed on a machine.

    Attributes:
        version: Its version.
        precisions: Number formats that it takes.
        emulated: Those of them that the processor has no instructions for.
    """

    version: str
    precisions: tuple[str, ...]
    emulated: tuple[str, ...] = ()


class MachineFacts(Spec):
    """A machine that models are measured on.

    Attributes:
        host: Its name.
        processor: What the operating system calls its processor.
        num_processors: How many there are.
        memory_mb: Main memory.
        python: Version of the Python that answers.
        architecture: Its instruction set, as the operating system names it.
        gpus: Names of its GPUs.
        runtimes: What executes models here, by name.
        missing: What could be installed.
        energy: Where its energy counters are, by device: ``rapl``, ``nvml``.
    """

    host: str
    processor: str
    num_processors: int
    memory_mb: float
    python: str
    architecture: str = ""
    gpus: tuple[str, ...] = ()
    runtimes: dict[str, RuntimeFacts]
    missing: tuple[str, ...] = ()
    energy: dict[str, str] = {}

    @property
    def fingerprint(self) -> str:
        """Equal for machines of equal hardware, whatever their names."""
        memory_gb = round(self.memory_mb / 1000)
        hardware = [self.architecture, self.processor, self.num_processors, memory_gb, *self.gpus]
        return hashlib.sha256(json.dumps(hardware).encode()).hexdigest()[:16]


class TargetFacts(Spec):
    """A target of a cluster.

    Attributes:
        name: As jobs call it.
        is_there: Whether its node is up.
        seen_at: When it was last up, in seconds since the epoch.
        machine: What it says of itself; None where it is away or does not answer.
        problem: Why it does not answer.
    """

    name: str
    is_there: bool
    seen_at: float
    machine: MachineFacts | None = None
    problem: str = ""
