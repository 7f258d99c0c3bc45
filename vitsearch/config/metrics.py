"""The metrics a job can name: as an objective, in a constraint, inside EER."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MetricName = Literal[
    "accuracy", "eer", "latency", "throughput", "memory", "energy", "size", "macs", "params", "bits"
]  # fmt: skip
Origin = Literal["trained", "cost", "measured"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One figure of merit.

    Attributes:
        key: Name of the figure in results, files and JSON; carries its unit.
        title: What people read on axes and in tables.
        maximize: The direction in which the metric improves.
        low: The least value there can be.
        high: The greatest; None without limit.
        origin: ``cost`` follows from the candidate before training, ``trained`` needs the trained model,
            ``measured`` needs a measurement on a target.
    """

    key: str
    title: str
    maximize: bool
    origin: Origin
    low: float = 0.0
    high: float | None = None


METRICS: dict[str, Metric] = {
    "accuracy": Metric(key="accuracy", title="accuracy", maximize=True, origin="trained", high=1.0),
    "eer": Metric(key="eer_pct", title="EER (%)", maximize=False, origin="cost"),
    "latency": Metric(key="latency_ms_p50", title="latency p50 (ms)", maximize=False, origin="measured"),
    "throughput": Metric(key="images_per_s", title="throughput (images/s)", maximize=True, origin="measured"),
    "memory": Metric(key="peak_memory_mb", title="peak memory (MB)", maximize=False, origin="measured"),
    "energy": Metric(key="energy_mj", title="energy (mJ/image)", maximize=False, origin="measured"),
    "size": Metric(key="size_mb", title="size (MB)", maximize=False, origin="cost"),
    "macs": Metric(key="num_macs", title="FLOPs (MACs)", maximize=False, origin="cost"),
    "params": Metric(key="num_params", title="parameters", maximize=False, origin="cost"),
    "bits": Metric(key="bits", title="bits", maximize=False, origin="cost", low=1.0, high=32.0),
}
