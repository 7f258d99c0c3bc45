"""A study as tables: every trial as CSV, the front as Markdown."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence

from vitsearch.config import METRICS, JobSpec, Spec
from vitsearch.messages import Profile, TrialFailure, TrialResult
from vitsearch.report.axes import data_words, eer_words, plain, reference_words, shown, simulated_bits
from vitsearch.report.figures import known_figures, violations
from vitsearch.report.front import StudyReport
from vitsearch.storage import TrialRecord

Scalar = str | int | float | bool
SIMULATED_WORDS = (
    "Bit-widths below 8 and 16-bit activations are simulated: they count in size and EER, never in latency."
)
SIMULATED_NOTE = f"\\* {SIMULATED_WORDS}"
COLUMNS = {
    "accuracy": "accuracy", "eer_pct": "EER", "num_params": "parameters", "num_macs": "FLOPs (MACs)",
    "bits": "bits", "size_mb": "size", "latency_ms_p50": "latency p50", "images_per_s": "throughput",
    "peak_memory_mb": "peak memory", "energy_mj": "energy per image",
}  # fmt: skip


def fate(trial: TrialRecord, job: JobSpec) -> str:
    """What became of a trial: done, infeasible, failed, running, waiting, rejected or duplicate."""
    if trial.kind != "evaluate":
        return trial.kind
    if isinstance(trial.outcome, TrialFailure):
        return "failed"
    if trial.outcome is None:
        return "running" if trial.state == "leased" else "waiting"
    if trial.unmeasured:
        return "failed"
    return "infeasible" if violations(trial.figures, job.constraints) else "done"


def why(trial: TrialRecord, job: JobSpec) -> str:
    """Why a trial is not a plain success; empty for one that is."""
    if isinstance(trial.outcome, TrialFailure):
        return f"{trial.outcome.stage}: {trial.outcome.failure}: {trial.outcome.message}"
    if trial.unmeasured:
        return f"profile: {trial.unmeasured}"
    if trial.same_as is not None:
        return f"same candidate as trial {trial.same_as}"
    return trial.note or "; ".join(violations(trial.figures, job.constraints))


def flatten(spec: Spec, prefix: str = "") -> dict[str, Scalar]:
    """The fields of a record by dotted name; lists as JSON text, absent ones left out."""
    return _flat(spec.model_dump(mode="json"), prefix)


def trials_csv(report: StudyReport) -> str:
    """One row for each trial: fate, figures, candidate, place on the front, time, final test accuracy.

    Figures are in their stored units (accuracy 0 to 1). A trial without results shows its known cost.
    """
    job, front = report.job, {trial.number for trial in report.front}
    rows: list[dict[str, Scalar]] = []
    for trial in report.trials:
        outcome, final = trial.outcome, trial.final
        row: dict[str, Scalar] = {
            "trial": trial.number,
            "kind": trial.kind,
            "state": trial.state,
            "fate": fate(trial, job),
            "why": why(trial, job),
            "on_front": trial.number in front,
            "knee": report.knee is not None and trial.number == report.knee.number,
        }
        row |= trial.figures or known_figures(trial.cost, job)
        profile = trial.profiles.get(job.targets[0].name)
        if profile is not None:
            row["runtime"] = _runtime(profile)
            if profile.accuracy is not None:
                row["runtime_accuracy"] = profile.accuracy
        if isinstance(outcome, TrialResult):
            row |= {"seconds": round(outcome.total_s, 3), "epochs": outcome.epochs_run}
        if isinstance(final, TrialResult) and final.split == "test":
            row["test_accuracy"] = final.accuracy
        row |= {"summary": trial.candidate.summary(), "hash": trial.candidate.hash} | flatten(trial.candidate)
        rows.append(row)
    fixed = ["trial", "kind", "state", "fate", "why", "on_front", "knee", *(m.key for m in METRICS.values()),
             "latency_ms_p95", "seconds", "epochs", "test_accuracy", "summary", "hash"]  # fmt: skip
    rest = sorted({key for row in rows for key in row} - set(fixed))
    out = io.StringIO()
    writer = csv.DictWriter(out, [*fixed, *rest], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return out.getvalue()


def front_table(report: StudyReport) -> tuple[list[str], list[list[str]]]:
    """Heading and rows of the front; figures that no member has are left out."""
    asked = {METRICS[name].key for name in report.job.objectives}
    hidden = {
        "images_per_s",
        "peak_memory_mb",
        "energy_mj",
    } - asked  # follow from the same measurement; the CSV has them
    keys = [key for key in COLUMNS if key not in hidden and any(key in t.figures for t in report.front)]
    tested = any(isinstance(trial.final, TrialResult) for trial in report.front)
    target = report.job.targets[0]
    raced = bool(target.also) and any(target.name in trial.profiles for trial in report.front)
    heading = ["trial", *(COLUMNS[key] for key in keys), *(["test accuracy"] if tested else []),
               *(["fastest runtime"] if raced else []), "candidate"]  # fmt: skip
    rows = []
    for trial in report.front:
        knee = " ★ knee" if report.knee is not None and trial.number == report.knee.number else ""
        row = [f"{trial.number}{knee}"]
        row += [shown(key, trial.figures[key]) if key in trial.figures else "" for key in keys]
        if tested:
            final = trial.final
            row.append(shown("accuracy", final.accuracy) if isinstance(final, TrialResult) else "")
        if raced:
            profile = trial.profiles.get(target.name)
            row.append("" if profile is None else _fastest(profile))
        row.append(trial.candidate.summary() + (" *" if simulated_bits(trial.candidate) else ""))
        rows.append(row)
    return heading, rows


def front_markdown(report: StudyReport, max_chars: int | None = None) -> str:
    """The front as a Markdown table under a short account of the study.

    Args:
        report: The study.
        max_chars: Leave out the last rows, and say how many, rather than exceed this length.
    """
    job = report.job
    objectives = " and ".join(
        f"{'highest' if METRICS[name].maximize else 'lowest'} {name.upper() if name == 'eer' else name}"
        for name in job.objectives
    )
    lines = [
        f"**{report.study.name}** · {objectives} · {data_words(report)}",
        "",
        f"{counts_words(report)} · {reference_words(report)}",
        "",
        f"{_escape(eer_words(job))}. Accuracy is on the validation split.",
        "",
    ]
    if not report.front:
        return "\n".join([*lines, "The front is empty: no trial has succeeded within the constraints yet.", ""])
    heading, rows = front_table(report)
    lines += [_line(heading), _line(["---:"] * (len(heading) - 1) + [":---"])]
    body = [_line(row).replace("★ knee", "**★ knee**") for row in rows]
    simulated = any(simulated_bits(trial.candidate) for trial in report.front)
    tail = ["", SIMULATED_NOTE] if simulated else []
    return _fitted(lines, body, tail, max_chars)


def trial_markdown(trial: TrialRecord, report: StudyReport) -> str:
    """One trial as people read it: candidate, figures, conditions of every measurement."""
    lines = [f"**{trial.candidate.summary()}** · candidate `{trial.candidate.hash}`", ""]
    if report.knee is not None and trial.number == report.knee.number:
        lines += ["★ The knee: the front member nearest to the ideal point.", ""]
    lines += [_line(["figure", "value"]), _line([":---", "---:"])]
    lines += [_line([COLUMNS[key], shown(key, trial.figures[key])]) for key in COLUMNS if key in trial.figures]
    if isinstance(trial.final, TrialResult):
        lines.append(_line(["test accuracy, retrained at full length", shown("accuracy", trial.final.accuracy)]))
    lines += ["", f"{_escape(eer_words(report.job))}.", ""]
    lines += [f"- {_escape(line)}" for profile in trial.profiles.values() for line in profile_lines(profile)]
    if simulated_bits(trial.candidate):
        lines += ["", SIMULATED_NOTE]
    return "\n".join([*lines, ""])


def _fastest(profile: Profile) -> str:
    """The runtime behind a latency, with the accuracy of its own arithmetic where that is not the trial's."""
    right = "" if profile.accuracy is None else f", {shown('accuracy', profile.accuracy)} correct"
    return f"{_runtime(profile)}{right}"


def _runtime(profile: Profile) -> str:
    return profile.conditions.runtime.partition(" ")[0]


def profile_lines(profile: Profile) -> list[str]:
    """A sentence for each runtime of one target, the fastest first and named as such, those that failed last."""
    others = [profile_words(one) for one in sorted(profile.others, key=lambda one: one.latency_ms_p50)]
    failed = [
        f"On {profile.conditions.target}: {name} could not be measured: {reason}"
        for name, reason in profile.failed.items()
    ]
    return [f"{profile_words(profile)}{', the fastest runtime' if others else ''}", *others, *failed]


def profile_words(profile: Profile) -> str:
    """A measurement with its conditions, in one sentence."""
    c = profile.conditions
    return (
        f"On {c.target}: {plain(profile.latency_ms_p50)} ms median, {plain(profile.latency_ms_p95)} ms p95 for "
        f"{c.batch_size} image{'s' if c.batch_size > 1 else ''} ({c.device}, {c.runtime}, {c.dtype}, "
        f"{c.threads} thread{'s' if c.threads > 1 else ''}, {c.warmup} warm-up and {c.repeats} measured calls, "
        f"{'beside running trainers' if c.contended else 'nothing else running'}, on {c.inputs})"
        + (
            ""
            if profile.accuracy is None
            else f", {shown('accuracy', profile.accuracy)} correct in this arithmetic"
        )
        + "".join(f", {note}" for note in profile.notes)
    )


def counts_words(report: StudyReport) -> str:
    """How many trials ended how: ``48 trials done, 2 failed, 11 rejected before training``."""
    counts = Counter(fate(trial, report.job) for trial in report.trials)
    words = {
        "failed": "failed", "infeasible": "infeasible", "running": "running", "waiting": "waiting",
        "rejected": "rejected before training", "duplicate": "repeated",
    }  # fmt: skip
    parts = [f"{counts[key]} {text}" for key, text in words.items() if counts[key]]
    return ", ".join([f"{counts['done']} trials done", *parts, f"{len(report.front)} on the front"])


def _fitted(lines: list[str], body: list[str], tail: list[str], max_chars: int | None) -> str:
    for kept in range(len(body), -1, -1):
        left = len(body) - kept
        more = ["", f"… and {left} more, in `trials.csv`."] if left else []
        text = "\n".join([*lines, *body[:kept], *more, *tail, ""])
        if max_chars is None or len(text) <= max_chars:
            return text
    return text[:max_chars]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_escape(cell) for cell in cells) + " |"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _cell(value: Scalar) -> Scalar:
    return str(value).lower() if isinstance(value, bool) else value


def _flat(value: object, name: str) -> dict[str, Scalar]:
    if isinstance(value, dict):
        found: dict[str, Scalar] = {}
        for key, inner in value.items():
            found |= _flat(inner, f"{name}.{key}" if name else str(key))
        return found
    if value is None:
        return {}
    return {name: value if isinstance(value, str | int | float) else json.dumps(value)}
