"""The job: one YAML file that says everything about one search."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from vitsearch.config.base import Place, Spec
from vitsearch.config.checking import parse
from vitsearch.config.dataset import DatasetSpec
from vitsearch.config.metrics import METRICS, MetricName
from vitsearch.config.paths import from_folder
from vitsearch.config.placeholders import check_placeholders, is_placeholder
from vitsearch.config.space import SpaceSpec
from vitsearch.config.tables import RUNTIMES, SAMPLERS, RuntimeName, SamplerName
from vitsearch.config.train import RECIPES, TrainSpec
from vitsearch.errors import InputError, hide_password

EerMetric = Literal["params", "macs", "bits", "size", "latency", "memory", "energy"]
Positive = Annotated[float, Field(gt=0)]
TARGET_NAME = r"^[a-z0-9_]{1,64}$"


class ConstraintSpec(Spec):
    """A bound on one metric: ``{metric: eer, max: 5}``.

    Attributes:
        metric: The metric's name.
        max: Largest admissible value.
        min: Smallest admissible value.
    """

    metric: MetricName
    max: float | None = None  # the words people write in YAML
    min: float | None = None

    @model_validator(mode="after")
    def _has_a_bound(self) -> Self:
        if self.max is None and self.min is None:
            raise ValueError(f"the constraint on {self.metric} needs max or min")
        if self.max is not None and self.min is not None and self.min > self.max:
            raise ValueError(f"min must not exceed max, but got min={self.min}, max={self.max}")
        return self

    @field_validator("max", "min")
    @classmethod
    def _is_possible(cls, value: float | None, info: ValidationInfo) -> float | None:
        metric = METRICS.get(info.data.get("metric", ""))  # none where the name itself is wrong
        if value is None or metric is None:
            return value
        if metric.high is None:
            if value < metric.low:
                raise ValueError(f"must be {metric.low:g} or more, but got {value:g}; choose a larger number")
        elif not metric.low <= value <= metric.high:
            percent = metric.high == 1 < value <= 100
            remedy = f"did you mean {value / 100:g}?" if percent else f"no {metric.title} lies outside"
            raise ValueError(f"must lie between {metric.low:g} and {metric.high:g}, but got {value:g}; {remedy}")
        return value


class ReferenceSpec(Spec):
    """The model that EER compares with; the default is ViT-B/16 (survey, Section 5).

    Attributes:
        name: Shown beside every EER.
        params_m: Parameters in millions.
        flops_g: MACs in billions, which the survey calls FLOPs.
        bits: Mean of weight and activation bits.
        size_mb: Stored size in MB.
        latency_ms: Median latency, only for an EER over latency.
        memory_mb: Peak memory, only for an EER over memory.
        energy_mj: Energy of one image, only for an EER over energy.
    """

    name: str = "ViT-B/16"
    params_m: Positive = 86.6
    flops_g: Positive = 17.6
    bits: Positive = 32.0
    size_mb: Positive = 330.0
    latency_ms: Positive | None = None
    memory_mb: Positive | None = None
    energy_mj: Positive | None = None


class EerSpec(Spec):
    """Which metrics EER averages, against which reference, with which weights.

    Attributes:
        metrics: The metrics, each once.
        reference: The model compared with.
        weights: Weights that sum to 1 (Eq. 28), one per metric; none gives Eq. 26.
    """

    metrics: Annotated[tuple[EerMetric, ...], Field(min_length=1)] = ("params", "macs", "bits", "size")
    reference: ReferenceSpec = ReferenceSpec()
    weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.metrics)) != len(self.metrics):
            raise ValueError(f"each EER metric counts once, but got {list(self.metrics)}")
        if self.weights is not None:
            if len(self.weights) != len(self.metrics):
                raise ValueError(
                    f"weights must be one per metric, but got {len(self.weights)} for {len(self.metrics)}"
                )
            if abs(sum(self.weights) - 1) > 1e-6:
                raise ValueError(f"weights must sum to 1, but got {sum(self.weights):g}")
        for metric, unit in _UNIT.items():
            if metric in self.metrics and getattr(self.reference, f"{metric}_{unit}") is None:
                raise ValueError(f"an EER over {metric} needs eer.reference.{metric}_{unit}")
        return self


_UNIT = {"latency": "ms", "memory": "mb", "energy": "mj"}


class SearchSpec(Spec):
    """How the study is driven.

    Attributes:
        sampler: Name in ``SAMPLERS``.
        trials: Candidates to train; rejected and repeated ones do not count.
        time_limit_s: Wall-clock budget of the search; whichever ends first.
        max_workers: Trainer processes at most. On this machine, by default one for every two processors, at least
            two; on a cluster as many as there is room for, which several studies share by their priorities.
        threads_per_worker: Compute threads of one worker. By default the processors of this machine divided among
            workers; on a cluster one, and a worker takes as many processors there.
        gpus_per_worker: Share of a GPU that a worker on a cluster takes; by default one where there are any.
        priority: Weight against other studies of a cluster: one of 2 gets twice the workers of one of 1.
        max_retries: Attempts after a lost worker before a trial counts as failed.
        trial_timeout_s: A trial that reports nothing for this long is given up.
        population: Population of ``nsga2`` and ``nsga3``; by default a quarter of the trials, 8 to 50, and from
            2,500 trials on a fiftieth.
    """

    sampler: SamplerName = "nsga2"
    trials: Annotated[int, Field(ge=1)] = 50
    time_limit_s: Positive | None = None
    max_workers: Annotated[int, Field(ge=1)] | None = None
    threads_per_worker: Annotated[int, Field(ge=1)] | None = None
    gpus_per_worker: Annotated[float, Field(ge=0)] | None = None
    priority: Annotated[float, Field(gt=0, le=1000)] = 1.0
    max_retries: Annotated[int, Field(ge=0)] = 2
    trial_timeout_s: Positive = 3600.0
    population: Annotated[int, Field(ge=2)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _under_its_first_name(cls, value: Any) -> Any:
        """Read what was written when ``max_workers`` was ``workers``."""
        if isinstance(value, dict) and "workers" in value and "max_workers" not in value:
            return {"max_workers" if name == "workers" else name: given for name, given in value.items()}
        return value


class EvaluateSpec(Spec):
    """How a trained model is scored.

    Attributes:
        batch_size: Images of one forward pass.
        calibration_images: Training images that set the ranges of quantised activations.
    """

    batch_size: Annotated[int, Field(ge=1)] = 256
    calibration_images: Annotated[int, Field(ge=1)] = 128


class TargetSpec(Spec):
    """A device and runtime to measure on.

    Attributes:
        name: Name of the Ray resource ``target_<name>``.
        runtime: What executes the model.
        also: Further runtimes to measure here. The latency of a model is that of the fastest of all, which reports
            name; one that executes other bits than the model's is left out.
        device: What the runtime computes on: ``cpu``, or ``cuda`` for the first GPU of the target.
        batch_size: Images of one measured call.
        threads: Compute threads of the runtime.
        warmup: Calls before the first measured one.
        repeats: Measured calls.
        wait_s: How long measurements wait for a target that is away before they fall back; without limit by
            default. The search goes on meanwhile.
        fallback: Another target, of equal hardware, that measures in its place after that; without one, a model
            that has waited so long stays unmeasured.
    """

    name: Annotated[str, Field(pattern=TARGET_NAME)] = "local"
    runtime: RuntimeName = "pytorch"
    also: tuple[RuntimeName, ...] = ()
    device: Literal["cpu", "cuda"] = "cpu"
    batch_size: Annotated[int, Field(ge=1)] = 1
    threads: Annotated[int, Field(ge=1)] = 1
    warmup: Annotated[int, Field(ge=0)] = 5
    repeats: Annotated[int, Field(ge=3)] = 30
    wait_s: Annotated[float, Field(ge=0)] | None = None
    fallback: Annotated[str, Field(pattern=TARGET_NAME)] | None = None

    @property
    def runtimes(self) -> tuple[str, ...]:
        """Every runtime to measure, each once, the main one first."""
        return tuple(dict.fromkeys((self.runtime, *self.also)))

    @model_validator(mode="after")
    def _runtimes_compute_there(self) -> Self:
        for name in self.runtimes:
            if self.device not in RUNTIMES[name].devices:
                known = " or ".join(RUNTIMES[name].devices)
                raise ValueError(
                    f"{name} computes on {known} only, but got device={self.device}; set device: {known}"
                )
        return self

    @model_validator(mode="after")
    def _falls_back_elsewhere(self) -> Self:
        if self.fallback == self.name:
            raise ValueError(f"fallback must be another target than {self.name!r}; name one, or leave it out")
        if self.fallback is not None and self.wait_s is None:
            raise ValueError("fallback needs wait_s: after how many seconds it takes over; add it")
        return self


class FinalSpec(Spec):
    """What happens to winners after the search.

    The test split is read here and nowhere else.

    Attributes:
        retrain: Which models are trained again, at full length, and scored on the test split.
        epochs: Epochs of that training; by default three times the search's.
    """

    retrain: Literal["none", "knee", "front"] = "knee"
    epochs: Annotated[int, Field(ge=1)] | None = None


def _with_placeholders(address: str | None) -> str | None:
    if address is not None:
        check_placeholders(address)
    return address


class StorageSpec(Spec):
    """Where the study lives.

    Attributes:
        url: SQLAlchemy URL; by default an SQLite file in the run's folder. In it ``${NAME}`` stands for a variable
            and ``${file:/FOLDER/FILE}`` for the first line of a file, where the search is driven.
        artifacts: Folder or fsspec address (``s3://BUCKET/FOLDER``) for weights and checkpoints, which workers
            reach, too; by default the run's folder. The study has a folder of its name there.
        optuna_mirror: Keep an Optuna RDB copy in the run's folder for optuna-dashboard.
    """

    url: str | None = None
    artifacts: str | None = None
    optuna_mirror: bool = False

    @field_validator("url")
    @classmethod
    def _is_a_database(cls, value: str | None) -> str | None:
        address = r"[a-z0-9_]+(\+[a-z0-9_]+)?://."
        if value is not None and not is_placeholder(value) and not re.match(address, value):
            raise ValueError(
                f"must be the address of a database, but got {hide_password(value)!r}; "
                f"write sqlite:////FOLDER/FILE.db or postgresql+psycopg://HOST/DATABASE"
            )
        return _with_placeholders(value)


class TrackingSpec(Spec):
    """Where MLflow records go.

    Attributes:
        enabled: Whether anything is recorded.
        uri: Tracking server; by default an SQLite store in the run's folder. Takes ``${NAME}`` and
            ``${file:/FOLDER/FILE}`` as ``storage.url`` does.
        experiment: MLflow experiment; by default ``vitsearch/<job name>``.
    """

    enabled: bool = True
    uri: str | None = None
    experiment: str | None = None

    @field_validator("uri")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        known = r"(https?|file|databricks|(sqlite|postgresql|mysql|mssql)(\+[a-z0-9_]+)?)://\S|databricks$"
        if value is not None and not is_placeholder(value) and not re.match(known, value):
            raise ValueError(
                f"must be the address of an MLflow store, but got {hide_password(value)!r}; "
                f"write http://HOST:5000, or sqlite:////FOLDER/FILE.db"
            )
        return _with_placeholders(value)


def _or_preset_name(schema: dict[str, Any]) -> None:
    """In the JSON schema too, a space may be just the name of a preset."""
    written_out = dict(schema)
    schema.clear()
    schema["anyOf"] = [{"type": "string"}, written_out]


OPTIONS = {"search.trials": "--trials", "search.max_workers": "--workers", "seed": "--seed"}


class JobSpec(Spec):
    """Everything about one search; see ``docs/job.md`` for a commented example."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)]
    dataset: DatasetSpec
    space: Annotated[SpaceSpec, Field(json_schema_extra=_or_preset_name)]
    objectives: Annotated[tuple[MetricName, ...], Field(min_length=2)] = ("accuracy", "eer")
    constraints: tuple[ConstraintSpec, ...] = ()
    eer: EerSpec = EerSpec()
    search: SearchSpec = SearchSpec()
    train: TrainSpec = TrainSpec()
    evaluate: EvaluateSpec = EvaluateSpec()
    targets: Annotated[tuple[TargetSpec, ...], Field(min_length=1)] = (TargetSpec(),)
    final: FinalSpec = FinalSpec()
    storage: StorageSpec = StorageSpec()
    tracking: TrackingSpec = TrackingSpec()
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @field_validator("space", mode="before")
    @classmethod
    def _preset_by_name(cls, value: Any) -> Any:
        return {"preset": value, "name": value} if isinstance(value, str) else value

    @field_validator("train", mode="before")
    @classmethod
    def _recipe_fills_gaps(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        name = value.get("recipe", "plain")
        if not isinstance(name, str) or name not in RECIPES:
            return value  # the field itself says what is wrong with the name
        return {**RECIPES[name].model_dump(), **value}

    @field_validator("objectives")
    @classmethod
    def _objectives_differ(cls, value: tuple[MetricName, ...]) -> tuple[MetricName, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"must differ from each other, but got {list(value)}; name each objective once")
        return value

    @field_validator("search")
    @classmethod
    def _sampler_takes_the_objectives(cls, value: SearchSpec, info: ValidationInfo) -> SearchSpec:
        count = len(info.data.get("objectives", ()))  # none where they break a rule themselves
        limit = SAMPLERS[value.sampler].max_objectives
        if not SAMPLERS[value.sampler].admits(count):
            others = ", ".join(name for name, kind in SAMPLERS.items() if kind.admits(count))
            raise ValueError(
                f"sampler {value.sampler} takes at most {limit} objectives, but got {count}; "
                f"choose one of {others}, or turn objectives into constraints"
            )
        return value

    @field_validator("targets")
    @classmethod
    def _targets_differ(cls, value: tuple[TargetSpec, ...]) -> tuple[TargetSpec, ...]:
        names = [target.name for target in value]
        if len(set(names)) != len(names):
            raise ValueError(f"must have different names, but got {names}; rename one of them")
        return value

    @property
    def needs_profile(self) -> bool:
        """Whether every trial must be measured: an objective, a constraint or EER asks for it."""
        named = {*self.objectives, *(c.metric for c in self.constraints), *self.eer.metrics}
        return any(METRICS[name].origin == "measured" for name in named)

    def with_overrides(
        self, *, trials: int | None = None, workers: int | None = None, seed: int | None = None
    ) -> JobSpec:
        """The same job with the command line's options in place; checked again as a whole.

        Raises:
            InputError: An option breaks a rule; the message names the option.
        """
        given = {"search.trials": trials, "search.max_workers": workers, "seed": seed}
        data = self.model_dump()
        for name, value in given.items():
            part, _, field = name.rpartition(".")
            if value is not None:
                (data[part] if part else data)[field] = value
        try:
            return parse(JobSpec, data, where=self.name)
        except InputError as error:
            if given.get(error.field) is not None:
                error.where, error.field = "", OPTIONS[error.field]
            raise

    @property
    def places(self) -> list[Place]:
        """Where its data and networks lie."""
        distill = self.train.distill
        networks = [one for one in (distill.teacher, distill.second_teacher, self.train.pretrained) if one]
        named = [self.dataset.path, *(place for one in networks for place in (one.checkpoint, one.bundle))]
        return [place for place in named if place is not None]

    def resolve_paths(self, folder: Path) -> JobSpec:
        """The same job with relative paths of data and networks made absolute against ``folder``."""
        return self.with_paths(lambda path: from_folder(path, folder))

    def with_paths(self, change: Callable[[Path], Place]) -> JobSpec:
        """The same job with each path of data and networks changed; addresses stay."""
        dataset, train, start = self.dataset, self.train, self.train.pretrained
        if isinstance(dataset.path, Path):
            dataset = dataset.model_copy(update={"path": change(dataset.path)})
        distill = train.distill.with_networks(lambda network: network.with_paths(change))
        train = train.model_copy(update={"distill": distill})
        if start is not None:
            train = train.model_copy(update={"pretrained": start.with_paths(change)})
        return self.model_copy(update={"dataset": dataset, "train": train})
