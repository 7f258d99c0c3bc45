"""``show``: one trial, as a person wants to see it before exporting it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitsearch.cli.options import Folder, JsonFlag, Study, StudyAddress, StudyDatabase, print_json

if TYPE_CHECKING:
    from vitsearch.report import StudyReport
    from vitsearch.storage import TrialRecord


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(show)


def show(
    folder: Folder = None,
    select: Annotated[
        str, typer.Option("--select", help="knee, best-accuracy, best-eer or trial=N.", metavar="WHICH")
    ] = "knee",
    study: Study = None,
    address: StudyAddress = None,
    database: StudyDatabase = None,
    json_output: JsonFlag = False,
) -> None:
    """Show one trial: candidate, figures, place, measurements, why it failed; also off the front."""
    from vitsearch.cli.finding import found_study
    from vitsearch.report import StudyReport, find_trial
    from vitsearch.report.account import trial_account

    with found_study(folder, study, address, database) as found:
        report, words = StudyReport.load(found.store), found.words
    trial = find_trial(report, select)
    command = export_command(trial, report, words)
    if json_output:
        print_json({**trial_json(trial, report), "export": command or None})
        return
    for line in trial_account(trial, report):
        typer.echo(line)
    typer.echo(
        f"\nexport     {command or 'only members of the front keep their weights: ' + instead(report, words)}"
    )


def export_command(trial: TrialRecord, report: StudyReport, words: str) -> str:
    """The command that exports a trial; of a repeated candidate, the trial that was trained. Empty off the front.

    Args:
        trial: The trial.
        report: Its study.
        words: What names the study on a command line.
    """
    number = trial.number if trial.same_as is None else trial.same_as
    if number not in {member.number for member in report.front}:
        return ""
    return f"vitsearch export {words} --select trial={number} --out bundle"


def instead(report: StudyReport, words: str) -> str:
    """What to do where a trial cannot be exported."""
    return f"vitsearch pareto {words}" if report.front else "there is none yet"


def member_json(trial: TrialRecord) -> dict[str, Any]:
    """A trial's figures and candidate for programs."""
    test = getattr(trial.final, "accuracy", None)
    return {
        "trial": trial.number,
        "accuracy": trial.figures.get("accuracy"),
        "eer_pct": trial.figures.get("eer_pct"),
        "test_accuracy": test,
        **{k: v for k, v in trial.figures.items() if k not in {"accuracy", "eer_pct"}},
        "candidate": trial.candidate.model_dump(mode="json"),
        "candidate_hash": trial.candidate.hash,
        "profiles": {name: profile.model_dump(mode="json") for name, profile in trial.profiles.items()},
    }


def trial_json(trial: TrialRecord, report: StudyReport) -> dict[str, Any]:
    """Everything about a trial for programs; the keys of a front member are those of ``pareto --json``."""
    from vitsearch.report.axes import simulated_bits
    from vitsearch.report.figures import known_figures
    from vitsearch.report.standing import Standing
    from vitsearch.report.tables import fate, why

    standing = Standing.of(trial, report)
    return {
        "study": report.study.name,
        **member_json(trial),
        "summary": trial.candidate.summary(),
        "fate": fate(trial, report.job),
        "why": why(trial, report.job),
        "on_front": standing.on_front,
        "knee": standing.is_knee,
        "pareto_rank": standing.rank,
        "num_feasible": standing.num_rivals,
        "places": standing.places,
        "beaten_by": list(standing.beaten_by),
        "cost": trial.cost.model_dump(mode="json"),
        "known_figures": known_figures(trial.cost, report.job),
        "simulated_bits": simulated_bits(trial.candidate),
        "outcome": None if trial.outcome is None else trial.outcome.model_dump(mode="json"),
        "final": None if trial.final is None else trial.final.model_dump(mode="json"),
        "state": trial.state,
        "attempts": trial.attempts,
        "worker": trial.worker,
        "same_as": trial.same_as,
        "repeated_by": [one.number for one in report.trials if one.same_as == trial.number],
        "asked_at": trial.asked_at,
        "finished_at": trial.finished_at,
    }
