"""From costs, outcomes and measurements to the figures that objectives and constraints name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vitsearch.config import METRICS, ConstraintSpec, JobSpec
from vitsearch.cost import Cost
from vitsearch.messages import Profile, TrialResult


def known_figures(cost: Cost, job: JobSpec) -> dict[str, float]:
    """Every figure that is known before training, by its key."""
    figures = {
        "num_params": float(cost.num_params),
        "num_macs": float(cost.num_macs),
        "bits": cost.bits,
        "size_mb": cost.size_mb,
    }
    eer = cost.eer_pct(job.eer)
    return figures if eer is None else {**figures, "eer_pct": eer}


def all_figures(
    cost: Cost, result: TrialResult, profiles: Mapping[str, Profile], job: JobSpec
) -> dict[str, float]:
    """Known and measured cost, accuracy, and what was measured on the job's first target."""
    cost = cost.after(result.measured)
    figures = known_figures(cost, job) | {"accuracy": result.accuracy}
    profile = profiles.get(job.targets[0].name)
    if profile is not None:
        figures |= {
            "latency_ms_p50": profile.latency_ms_p50,
            "latency_ms_p95": profile.latency_ms_p95,
            "images_per_s": profile.images_per_s,
            "peak_memory_mb": profile.peak_memory_mb,
        }
        measured = {"latency": profile.latency_ms_p50, "memory": profile.peak_memory_mb}
        if profile.energy_mj is not None:
            figures["energy_mj"] = measured["energy"] = profile.energy_mj
        eer = cost.eer_pct(job.eer, measured)
        if eer is not None:
            figures["eer_pct"] = eer
    return figures


def directions(job: JobSpec) -> list[bool]:
    """Whether each objective is maximised."""
    return [METRICS[name].maximize for name in job.objectives]


def objective_values(figures: Mapping[str, float], job: JobSpec) -> list[float] | None:
    """The objectives in the job's order, in their natural directions; None while one is missing."""
    values = [figures.get(METRICS[name].key) for name in job.objectives]
    return None if None in values else [float(v) for v in values if v is not None]


def violations(figures: Mapping[str, float], constraints: Iterable[ConstraintSpec]) -> dict[str, float]:
    """Relative excess over each bound that is broken, by a sentence that says so; figures not yet known pass."""
    broken: dict[str, float] = {}
    for constraint in constraints:
        metric = METRICS[constraint.metric]
        value = figures.get(metric.key)
        if value is None:
            continue
        if constraint.max is not None and value > constraint.max:
            sentence = f"{metric.title} {value:.6g} exceeds {constraint.max:g}"
            broken[sentence] = (value - constraint.max) / max(abs(constraint.max), 1e-12)
        if constraint.min is not None and value < constraint.min:
            sentence = f"{metric.title} {value:.6g} is below {constraint.min:g}"
            broken[sentence] = (constraint.min - value) / max(abs(constraint.min), 1e-12)
    return broken


def constraints_known(figures: Mapping[str, float], constraints: Iterable[ConstraintSpec]) -> bool:
    """Whether every constrained figure is there; a model that was not measured must not pass for feasible."""
    return all(METRICS[constraint.metric].key in figures for constraint in constraints)


def infeasible_values(
    known: Mapping[str, float], job: JobSpec, chance_accuracy: float, worst_seen: Mapping[str, float]
) -> list[float]:
    """What a sampler is told about a candidate without results: chance accuracy, its known cost.

    An objective that only a measurement could tell gets the worst value seen so far.
    """
    values: list[float] = []
    for name in job.objectives:
        metric = METRICS[name]
        if name == "accuracy":
            values.append(chance_accuracy)
        elif metric.key in known:
            values.append(known[metric.key])
        else:
            values.append(worst_seen.get(metric.key, 0.0 if metric.maximize else 1e6))
    return values
