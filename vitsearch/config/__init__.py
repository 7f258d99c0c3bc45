"""The job and its parts: read once at the edge, typed from there on."""

from vitsearch.config.base import Address, Place, Spec
from vitsearch.config.dataset import DatasetSpec
from vitsearch.config.distill import DistillSpec
from vitsearch.config.job import (
    ConstraintSpec,
    EerSpec,
    EvaluateSpec,
    FinalSpec,
    JobSpec,
    ReferenceSpec,
    SearchSpec,
    StorageSpec,
    TargetSpec,
    TrackingSpec,
)
from vitsearch.config.loading import load_job, load_json, load_yaml, parse, read_job
from vitsearch.config.metrics import METRICS, Metric, MetricName
from vitsearch.config.network import NetworkSpec
from vitsearch.config.space import DimensionSpec, SpaceSpec, Value
from vitsearch.config.tables import (
    DATASETS,
    DISTILLERS,
    FILES,
    INNER_DISTILLERS,
    LIBRARIES,
    RUNTIMES,
    SAMPLERS,
    DatasetKind,
    LibraryKind,
    RuntimeKind,
    SamplerKind,
)
from vitsearch.config.train import RECIPES, TrainSpec

__all__ = [
    "DATASETS",
    "DISTILLERS",
    "FILES",
    "INNER_DISTILLERS",
    "LIBRARIES",
    "METRICS",
    "RECIPES",
    "RUNTIMES",
    "SAMPLERS",
    "Address",
    "ConstraintSpec",
    "DatasetKind",
    "DatasetSpec",
    "DimensionSpec",
    "DistillSpec",
    "EerSpec",
    "EvaluateSpec",
    "FinalSpec",
    "JobSpec",
    "LibraryKind",
    "Metric",
    "MetricName",
    "NetworkSpec",
    "Place",
    "ReferenceSpec",
    "RuntimeKind",
    "SamplerKind",
    "SearchSpec",
    "SpaceSpec",
    "Spec",
    "StorageSpec",
    "TargetSpec",
    "TrackingSpec",
    "TrainSpec",
    "Value",
    "load_job",
    "load_json",
    "load_yaml",
    "parse",
    "read_job",
]
