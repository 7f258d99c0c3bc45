"""What the JSON files of a bundle hold."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, ValidationError, model_validator

from vitsearch.candidate import Candidate, Precision
from vitsearch.config import METRICS, EerSpec, Spec, TrainSpec
from vitsearch.config.addresses import without_passwords
from vitsearch.cost import Cost
from vitsearch.errors import ExportError
from vitsearch.messages import MeasuredCost, Profile, TrialResult
from vitsearch.storage import DataSummary, StudyRecord, TrialRecord
from vitsearch.trial import CANDIDATE_FILE, WEIGHTS_FILE

PREPROCESS_FILE = "preprocess.json"
METRICS_FILE = "metrics.json"
ONNX_FILE = "model.onnx"
INT8_FILE = "model.int8.onnx"
CARD_FILE = "MODEL_CARD.md"
NEEDED_FILES = (WEIGHTS_FILE, CANDIDATE_FILE, PREPROCESS_FILE, METRICS_FILE, ONNX_FILE)
BUNDLE_FILES = (*NEEDED_FILES, CARD_FILE)
OPTIONAL_FILES = (INT8_FILE,)

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Int8Kind = Literal["dynamic", "qdq"]
INT8_KINDS: tuple[Int8Kind, ...] = get_args(Int8Kind)


class Preprocess(Spec):
    """How an image becomes the network's input, and what its outputs are called.

    Attributes:
        image_size: The short side is resized to this many pixels, then the centre is cropped.
        in_chans: 1 for grey, 3 for colour.
        mean: Subtracted per channel, on a scale of 0 to 1.
        std: Divided by afterwards, likewise.
        class_names: One name per logit.
    """

    image_size: Annotated[int, Field(ge=1, le=4096)]
    in_chans: Literal[1, 3]
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    class_names: Annotated[tuple[str, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_per_channel(self) -> Self:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.in_chans:
                raise ValueError(
                    f"{name} must have one figure per channel, but got {len(values)} for in_chans={self.in_chans}"
                )
        return self

    @classmethod
    def of(cls, data: DataSummary) -> Preprocess:
        """The preprocessing that training used."""
        return cls.model_validate(data.model_dump(include=set(cls.model_fields)))

    def misfit(self, candidate: Candidate) -> str:
        """Why these inputs and classes cannot belong to ``candidate``; empty when they can."""
        a = candidate.architecture
        for name, own, its in (
            ("image_size", self.image_size, a.image_size),
            ("in_chans", self.in_chans, a.in_chans),
            ("the number of classes", len(self.class_names), a.num_classes),
        ):
            if own != its:
                return f"{name} must be that of the candidate, {its}, but got {own}"
        return ""


class Prediction(Spec):
    """What the network makes of one image.

    Attributes:
        label: The most probable class, from 0.
        class_name: Its name.
        probability: Its share of the softmax; not calibrated.
        probabilities: The softmax over all classes.
    """

    label: int
    class_name: str
    probability: Share
    probabilities: tuple[Share, ...]


class OnnxCheck(Spec):
    """How ``model.onnx`` compared with PyTorch on real images.

    Attributes:
        images: Images compared.
        max_abs_diff: Largest difference of two logits.
        mean_abs_diff: Mean difference.
        max_abs_logit: Largest logit in magnitude, the scale of both.
        agreement: Share of images with the same most probable class.
    """

    images: int
    max_abs_diff: float
    mean_abs_diff: float
    max_abs_logit: float
    agreement: Share


class Int8File(Spec):
    """``model.int8.onnx``, which executes 8-bit integers, scored on itself with the bundle's weights.

    Attributes:
        kind: When the ranges of activations are chosen: for each batch, or beforehand.
        sha256: Checksum of the file.
        file_size_mb: Its size.
        images: Validation images it was scored on.
        accuracy_val: Share of them that it classifies correctly.
        agreement: Share of them that it classifies as PyTorch does, where the bits are simulated.
    """

    kind: Int8Kind
    sha256: Sha256
    file_size_mb: float
    images: Annotated[int, Field(ge=1)]
    accuracy_val: Share
    agreement: Share


class SimulatedBits(Spec):
    """Bit-widths that count in size and EER but that no runtime executed.

    Attributes:
        weight_bits: Widths below 32 that some weights have, ascending.
        activation_bits: Likewise for activations.
    """

    weight_bits: tuple[int, ...] = ()
    activation_bits: tuple[int, ...] = ()

    @classmethod
    def of(cls, candidate: Candidate, precision: Precision) -> SimulatedBits:
        """Everything below 32 bits: PyTorch and ONNX Runtime compute in float32 here.

        Args:
            candidate: The model.
            precision: Its own, or what ``mixed`` has made of that.
        """
        depth = candidate.pruned_architecture.depth
        return cls(
            weight_bits=tuple(sorted(set(precision.weight_bits_per_block(depth)) - {32})),
            activation_bits=tuple(sorted(set(precision.activation_bits_per_block(depth)) - {32})),
        )

    @property
    def any(self) -> bool:
        """Whether anything is simulated."""
        return bool(self.weight_bits or self.activation_bits)


class Versions(Spec):
    """Versions that wrote the bundle.

    Attributes:
        vitsearch: This library.
        torch: PyTorch.
        timm: Layers of the network.
        onnx: Format library.
        onnxruntime: Runtime of the check.
    """

    vitsearch: str
    torch: str
    timm: str
    onnx: str
    onnxruntime: str


class ModelFacts(Spec):
    """What the study knows about a model.

    Attributes:
        study: Name of the study.
        trial: Number within it.
        accuracy_val: On the validation split, of the model trained during the search.
        accuracy_test: On the test split, of the retrained model, whose weights are then the bundle's; None when
            the model was not retrained.
        epochs: Epochs behind the weights, fine-tuning excluded.
        seed: Seed of the study.
        train: The recipe during the search.
        figures: Every metric by its key.
        eer: How EER is computed, with its reference.
        profiles: Measurements.
        measured: The cost of the weights, where that was not known before training.
        weights_sha256: Checksum of the weights.
    """

    study: str
    trial: Count
    accuracy_val: Share
    accuracy_test: Share | None = None
    epochs: Count
    seed: int
    train: TrainSpec
    figures: dict[str, float] = {}
    eer: EerSpec = EerSpec()
    profiles: tuple[Profile, ...] = ()
    measured: MeasuredCost | None = None
    weights_sha256: Sha256


class BundleMetrics(ModelFacts):
    """``metrics.json``: everything known about the model in a bundle.

    Attributes:
        bundle_format: Raised when an older reader would misread a bundle.
        candidate_hash: Which candidate the figures belong to.
        cost: Closed-form cost.
        eer_pct: EER in percent of the reference; None while a metric in it is not measured.
        simulated: Bit-widths that were not executed.
        data_fingerprint: Checksum of images, labels and split.
        num_train: Training images.
        num_val: Validation images.
        num_test: Test images.
        num_skipped: Broken files left out.
        chance_accuracy: Accuracy of always naming the most frequent class.
        onnx_sha256: Checksum of ``model.onnx``.
        onnx_check: Its comparison with PyTorch.
        int8: What is known about ``model.int8.onnx``; None where the bundle has none.
        versions: What wrote the bundle.
    """

    bundle_format: Literal[1] = 1
    candidate_hash: str
    cost: Cost
    eer_pct: float | None
    simulated: SimulatedBits
    data_fingerprint: str
    num_train: Count
    num_val: Count
    num_test: Count
    num_skipped: Count
    chance_accuracy: Share
    onnx_sha256: Sha256
    onnx_check: OnnxCheck
    int8: Int8File | None = None
    versions: Versions


def facts_of(study: StudyRecord, trial: TrialRecord) -> ModelFacts:
    """The facts about a stored trial; of its full-length retraining where there is one.

    Raises:
        ExportError: The trial has no trained model, or what is stored of it is damaged.
    """
    outcome, final = trial.outcome, trial.final
    if not isinstance(outcome, TrialResult):
        raise ExportError(
            f"trial {trial.number} of study {study.name!r} has no trained model; choose one that succeeded"
        )
    retrained = isinstance(final, TrialResult)
    weights = final if isinstance(final, TrialResult) else outcome
    try:
        return ModelFacts(
            study=study.name,
            trial=trial.number,
            accuracy_val=outcome.accuracy,
            accuracy_test=weights.accuracy if retrained else None,
            epochs=weights.epochs_run,
            seed=study.job.seed,
            train=without_passwords(trial.candidate.training.applied_to(study.job.train)),
            figures=trial.figures,
            eer=study.job.eer,
            profiles=tuple(trial.profiles.values()),
            measured=weights.measured,
            weights_sha256=weights.weights_sha256,
        )
    except ValidationError as error:
        wrong = ", ".join(
            str(detail["loc"][0]) for detail in error.errors(include_url=False, include_context=False)
        )
        raise ExportError(
            f"what study {study.name!r} holds of trial {trial.number} is damaged: {wrong}"
        ) from error


def eer_pct_of(facts: ModelFacts, cost: Cost) -> float | None:
    """EER as the study stored it, measured metrics included; from the cost alone where it stored none."""
    stored = facts.figures.get(METRICS["eer"].key)
    return cost.eer_pct(facts.eer) if stored is None else stored
