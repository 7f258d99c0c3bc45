"""A chosen model as a folder that stands on its own, and the way back from the folder to predictions."""

from vitsearch.export.bundle import Bundle, load
from vitsearch.export.contents import (
    INT8_KINDS,
    BundleMetrics,
    Int8File,
    Int8Kind,
    ModelFacts,
    OnnxCheck,
    Prediction,
    Preprocess,
    SimulatedBits,
    Versions,
    facts_of,
)
from vitsearch.export.int8_file import Int8Request, require_int8
from vitsearch.export.networks import load_start, load_teacher
from vitsearch.export.write import export_bundle

__all__ = [
    "INT8_KINDS",
    "Bundle",
    "BundleMetrics",
    "Int8File",
    "Int8Kind",
    "Int8Request",
    "ModelFacts",
    "OnnxCheck",
    "Prediction",
    "Preprocess",
    "SimulatedBits",
    "Versions",
    "export_bundle",
    "facts_of",
    "load",
    "load_start",
    "load_teacher",
    "require_int8",
]
