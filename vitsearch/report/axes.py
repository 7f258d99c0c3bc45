"""How figures are named, scaled and written for people; which trials a picture shows how."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from vitsearch.candidate import Candidate
from vitsearch.config import METRICS, JobSpec
from vitsearch.config.addresses import name_of
from vitsearch.cost import eer_pct, landmarks
from vitsearch.report.figures import objective_values, violations
from vitsearch.report.front import StudyReport
from vitsearch.storage import TrialRecord

LOG_FROM = 30.0
EER_WORDS = {"params": "parameters", "macs": "FLOPs (MACs)"}


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One figure as people read it.

    Attributes:
        key: Key of the figure in results.
        title: What it is called, with its unit.
        maximize: The direction in which it improves.
        factor: From the stored unit to the shown one.
    """

    key: str
    title: str
    maximize: bool
    factor: float = 1.0

    @property
    def label(self) -> str:
        """The title and the better direction: ``accuracy (%) ↑``."""
        return f"{self.title} {'↑' if self.maximize else '↓'}"

    def value(self, trial: TrialRecord) -> float:
        """The trial's figure in the shown unit."""
        return trial.figures[self.key] * self.factor


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Trials with all objectives, by how a picture shows them.

    Attributes:
        front: The front, best first objective first.
        others: Feasible trials that some front member dominates.
        infeasible: Trained trials that break a constraint.
    """

    front: list[TrialRecord]
    others: list[TrialRecord]
    infeasible: list[TrialRecord]

    @classmethod
    def of(cls, report: StudyReport) -> Groups:
        """Sort a study's trials."""
        job, members = report.job, {trial.number for trial in report.front}
        shown = [t for t in report.trials if t.succeeded and objective_values(t.figures, job) is not None]
        feasible = [t for t in shown if not violations(t.figures, job.constraints)]
        return cls(
            front=report.front,
            others=[t for t in feasible if t.number not in members],
            infeasible=[t for t in shown if violations(t.figures, job.constraints)],
        )


def axes_of(job: JobSpec) -> list[Axis]:
    """One axis for each objective."""
    return [axis_of(name, job) for name in job.objectives]


def axis_of(name: str, job: JobSpec) -> Axis:
    """How one metric is shown."""
    metric = METRICS[name]
    title = metric.title
    if name == "accuracy":
        return Axis(key=metric.key, title="accuracy (%)", maximize=True, factor=100.0)
    if name == "eer" and job.eer.weights is not None:
        title = f"weighted {title}"
    return Axis(key=metric.key, title=title, maximize=metric.maximize)


def is_log(values: Iterable[float]) -> bool:
    """Whether an axis over these values reads better on a logarithmic scale."""
    found = list(values)
    return bool(found) and min(found) > 0 and max(found) / min(found) >= LOG_FROM


def shown(key: str, value: float) -> str:
    """A figure with its unit: ``97.22 %``, ``45.2 k``, ``0.18 MB``."""
    if key == "accuracy":
        return f"{100 * value:.2f} %"
    if key in {"num_params", "num_macs"}:
        return si(value)
    units = {"eer_pct": " %", "size_mb": " MB", "peak_memory_mb": " MB", "images_per_s": " images/s",
             "energy_mj": " mJ"}  # fmt: skip
    unit = " ms" if key.startswith("latency_ms") else units.get(key, "")
    return f"{plain(value)}{unit}"


def plain(value: float) -> str:
    """Three digits, never in scientific notation: ``0.0831``, ``12.3``, ``1,234``."""
    if abs(value) >= 100 or value == 0:
        return f"{value:,.0f}"
    text = f"{value:.3g}"
    return f"{float(text):.12f}".rstrip("0") if "e" in text else text


def si(value: float) -> str:
    """Three digits and k, M, G or T."""
    for unit in ("", "k", "M", "G"):
        if abs(value) < 999.5:
            return f"{value:.3g} {unit}".rstrip()
        value /= 1000
    return f"{plain(value)} T"


def staircase(points: Sequence[tuple[float, float]], maximize_x: bool) -> list[tuple[float, float]]:
    """The border of what a two-objective front dominates, as a polyline through its points sorted by x."""
    ordered = sorted(points)
    line = ordered[:1]
    for before, after in pairwise(ordered):
        line.append((before[0], after[1]) if maximize_x else (after[0], before[1]))
        line.append(after)
    return line


def data_words(report: StudyReport) -> str:
    """The data set in a few words."""
    data, spec = report.data, report.job.dataset
    hub_name = spec.name and (name_of(spec.name) if "://" in spec.name else spec.name)
    name = hub_name or ("" if spec.path is None else name_of(spec.path))
    kind = f"{spec.kind} {name}" if name and name != spec.kind else spec.kind
    side = data.image_size
    return (
        f"{kind}: {data.num_train:,} training and {data.num_val:,} validation images, "
        f"{len(data.class_names)} classes, {side} x {side} pixels"
    )


def eer_words(job: JobSpec) -> str:
    """What EER means in this study."""
    names = [EER_WORDS.get(name, name) for name in job.eer.metrics]
    if job.eer.weights is not None:
        names = [f"{weight:g} {name}" for weight, name in zip(job.eer.weights, names, strict=True)]
        return f"weighted EER: {' + '.join(names)}, divided by {len(names)}, relative to {job.eer.reference.name}"
    return f"EER: mean of {', '.join(names)} relative to {job.eer.reference.name}"


def reference_words(report: StudyReport) -> str:
    """Where the hypervolume ends."""
    bounds = (
        f"{axis.title.partition(' (')[0]} {shown(axis.key, bound)}"
        for axis, bound in zip(axes_of(report.job), report.reference, strict=True)
    )
    return f"hypervolume {plain(report.hypervolume)} up to {', '.join(bounds)}"


def simulated_bits(candidate: Candidate) -> bool:
    """Whether a bit-width counts in size and EER but is executed by no runtime here."""
    depth = candidate.pruned_architecture.depth
    weights = candidate.precision.weight_bits_per_block(depth)
    activations = candidate.precision.activation_bits_per_block(depth)
    return min(*weights, *activations) < 8 or 16 in activations


def published(report: StudyReport) -> list[tuple[str, float, float]]:
    """Published ImageNet models as (name, EER in percent, top-1 in percent), scored as this job scores.

    Empty unless the objectives are accuracy and EER; a row counts when its survey table used the same metrics.
    """
    job = report.job
    if set(job.objectives) != {"accuracy", "eer"}:
        return []
    found = []
    for row in landmarks():
        if row.top1_pct is None or set(row.eer_metrics) != set(job.eer.metrics):
            continue
        values = row.eer_values()
        if all(metric in values for metric in job.eer.metrics):
            found.append((row.model, eer_pct(values, job.eer), row.top1_pct))
    return found
