"""Everything about one trial, as lines of text that people read in a terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence

from vitsearch.config import METRICS
from vitsearch.messages import TrialFailure, TrialResult
from vitsearch.report.axes import eer_words, plain, shown, simulated_bits
from vitsearch.report.figures import known_figures
from vitsearch.report.front import StudyReport
from vitsearch.report.standing import Standing
from vitsearch.report.tables import COLUMNS, SIMULATED_WORDS, fate, profile_lines, why
from vitsearch.storage import TrialRecord

FIGURES = {**COLUMNS, "latency_ms_p95": "latency p95"}
COST_KINDS = {
    "exact": "exact",
    "bounded": "FLOPs (MACs) are the least that any image needs",
    "measured": "parameters, bits and size are estimates",
}
NAMED = 8


def trial_account(trial: TrialRecord, report: StudyReport) -> list[str]:
    """What a person wants to know before exporting a trial, one line after another."""
    standing = Standing.of(trial, report)
    lines = [
        f"trial {trial.number} of study {report.study.name}: {_headline(trial, report, standing)}",
        f"candidate  {trial.candidate.summary()}",
        f"hash       {trial.candidate.hash}",
    ]
    reason = why(trial, report.job)
    lines += [f"why        {reason}"] if reason else []
    lines += ["", *_figures(trial, report, standing), "", f"{eer_words(report.job)}."]
    lines += [f"{SIMULATED_WORDS}"] if simulated_bits(trial.candidate) else []
    for part in (_comparison(standing), _training(trial), _measurements(trial, report), _history(trial, report)):
        lines += ["", *part] if part else []
    return lines


def _headline(trial: TrialRecord, report: StudyReport, standing: Standing) -> str:
    parts = [fate(trial, report.job)]
    if standing.on_front:
        parts.append("on the front")
    if standing.is_knee:
        parts.append("★ the knee")
    return ", ".join(parts)


def _figures(trial: TrialRecord, report: StudyReport, standing: Standing) -> list[str]:
    """A table: the figure, the trial's, the knee's, its place."""
    job, knee = report.job, report.knee
    figures = trial.figures or known_figures(trial.cost, job)
    beside = None if knee is None or standing.is_knee else knee
    rows = [["", "this trial", *([f"knee ({beside.number})"] if beside else []), "place"]]
    places = {METRICS[name].key: place for name, place in standing.places.items()}
    for key, title in FIGURES.items():
        if key not in figures:
            continue
        other = beside.figures.get(key) if beside else None
        place = f"{places[key]} of {standing.num_rivals}" if key in places else ""
        row = [title, shown(key, figures[key])]
        rows.append([*row, *(["" if other is None else shown(key, other)] if beside else []), place])
        if key == "accuracy" and isinstance(trial.final, TrialResult):
            rows.append(
                ["test accuracy, retrained", shown(key, trial.final.accuracy), *([""] if beside else []), ""]
            )
    lines = _aligned(rows if places else [row[:-1] for row in rows])
    measured = trial.outcome.measured if isinstance(trial.outcome, TrialResult) else None
    cost = trial.cost.after(measured)
    tokens = " ".join(plain(count) for count in cost.tokens)
    lines.append(
        f"bits of weights {cost.weight_bits:.3g}, of activations {cost.activation_bits:.3g}; tokens {tokens}"
    )
    if cost.num_macs_p95 is not None:
        lines.append(f"95 % of the images need at most {shown('num_macs', cost.num_macs_p95)} FLOPs (MACs)")
    if measured is None and (trial.cost.kind != "exact" or not trial.succeeded):
        lines.append(f"known before training: {COST_KINDS[trial.cost.kind]}")
    return lines


def _comparison(standing: Standing) -> list[str]:
    if standing.rank is None:
        return ["It does not compete for the front."]
    lines = [f"Pareto rank {standing.rank} among {standing.num_rivals} feasible trials."]
    if standing.is_knee:
        lines.append("The knee is the front member nearest to the ideal point.")
    if standing.beaten_by:
        named = ", ".join(map(str, standing.beaten_by[:NAMED]))
        more = f" and {len(standing.beaten_by) - NAMED} more" if len(standing.beaten_by) > NAMED else ""
        who = f"Trial {named} of the front is" if len(standing.beaten_by) == 1 else f"Trials {named}{more} are"
        lines.append(f"{who} at least as good in every objective.")
    return lines


def _training(trial: TrialRecord) -> list[str]:
    lines = []
    if isinstance(trial.outcome, TrialResult):
        lines.append(f"Search: {_trained(trial.outcome)}; accuracy is on the validation split.")
    if isinstance(trial.final, TrialResult):
        right = f"{shown('accuracy', trial.final.accuracy)} on the {trial.final.split} split"
        lines.append(f"Retrained at full length: {right}; {_trained(trial.final)}.")
    if isinstance(trial.final, TrialFailure):
        lines.append(f"Retraining at full length failed: {trial.final.stage}: {trial.final.message}")
    return lines


def _trained(result: TrialResult) -> str:
    early = ", ended early" if result.stopped_early else ""
    return (
        f"{result.epochs_run} epochs{early} in {result.train_s:.1f} s on {result.device} in {result.autocast}, "
        f"{result.total_s:.1f} s in all; {shown('accuracy', result.dense_accuracy)} before compression, "
        f"loss {result.loss:.3g}"
    )


def _measurements(trial: TrialRecord, report: StudyReport) -> list[str]:
    lines = [line for profile in trial.profiles.values() for line in profile_lines(profile)]
    if not lines and trial.succeeded:
        named = ", ".join(target.name for target in report.job.targets)
        lines.append(f"Not measured on {named}" + ("." if not trial.unmeasured else f": {trial.unmeasured}"))
    return lines


def _history(trial: TrialRecord, report: StudyReport) -> list[str]:
    lines = [f"Asked {_moment(trial.asked_at)}" + _ended(trial)]
    if trial.state == "leased":
        lines.append(f"Worker {trial.worker} trains it, attempt {trial.attempts}.")
    elif trial.attempts > 1:
        lines.append(f"{trial.attempts} attempts: all but the last ended with their worker.")
    if isinstance(trial.outcome, TrialFailure):
        lines.append(
            "It may be tried again." if trial.outcome.retryable else "The candidate itself is the reason."
        )
    if trial.same_as is not None:
        lines.append(
            f"Trial {trial.same_as} has the same candidate and its figures (--select trial={trial.same_as})."
        )
    again = [str(one.number) for one in report.trials if one.same_as == trial.number]
    if again:
        lines.append(f"Asked for again as {'trial' if len(again) == 1 else 'trials'} {', '.join(again)}.")
    return lines


def _ended(trial: TrialRecord) -> str:
    if trial.finished_at is None:
        return "."
    return f", ended {_moment(trial.finished_at)} ({trial.finished_at - trial.asked_at:.1f} s later)."


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
