"""What submitted jobs do on the cluster; people use ``vitsearch submit`` and its like."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from vitsearch.cli.packing import FILES, JOB_NAME

if TYPE_CHECKING:
    from vitsearch.cli.board import Board
    from vitsearch.config import JobSpec

TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"
DATABASE_VARIABLE = "VITSEARCH_DATABASE_URL"
HANDED_OUT_FOR_S = 3600.0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)
Out = Annotated[Path, typer.Option("--out")]


@app.command()
def run(out: Out) -> None:
    """Begin the study of the package's job."""
    from vitsearch.cli.job_checks import check_written, checked_data
    from vitsearch.cli.run import drive
    from vitsearch.cli.session import new_study
    from vitsearch.config import read_job

    written = with_site_defaults(read_job(Path(JOB_NAME)))
    job = written.resolve_paths(Path.cwd())
    check_written(job, Path(JOB_NAME))
    data = checked_data(job)
    store = new_study(written.resolve_paths(out), out)
    if Path(FILES).is_dir():  # the package goes when the job ends, and a resume needs its files again
        shutil.copytree(FILES, out / FILES)
    drive(store, out, data, board=_board(job.name))


@app.command()
def resume(
    out: Out,
    trials: Annotated[int | None, typer.Option("--trials")] = None,
    workers: Annotated[int | None, typer.Option("--workers")] = None,
) -> None:
    """Go on with a study of this cluster."""
    from vitsearch.cli.run import drive_on
    from vitsearch.cli.session import open_study

    drive_on(out, trials=trials, workers=workers, board=_board(open_study(out).study().name))


@app.command()
def hand_out(out: Out, weights: Annotated[str, typer.Option("--weights")] = "none") -> None:
    """Pack a copy of a study, and keep it where the Jobs API hands it out until the job is stopped."""
    import ray

    from vitsearch.cli.copying import pack_study
    from vitsearch.cli.finding import in_folder
    from vitsearch.errors import StudyError
    from workers import StateFile, log_folder, this_submission

    submission = this_submission()
    if submission is None:
        raise StudyError("only a submitted job hands out a study")
    signal.signal(signal.SIGTERM, _leave)
    ray.init(logging_level="ERROR", log_to_driver=False)
    signal.signal(signal.SIGTERM, _leave)  # Ray sets its own
    file = log_folder() / f"vitsearch-{submission}.tar"
    try:
        facts = pack_study(in_folder(out), weights, file)
        StateFile(submission).write(json.dumps({**facts, "file": file.name}))
        time.sleep(HANDED_OUT_FOR_S)
    finally:
        with suppress(OSError):
            file.unlink()


@app.command()
def targets() -> None:
    """Ask every target what it is, and leave the answers where the Jobs API hands them out."""
    import ray

    from vitsearch.errors import StudyError
    from workers import StateFile, known_targets, this_submission

    submission = this_submission()
    if submission is None:
        raise StudyError("only a submitted job lists targets")
    ray.init(logging_level="ERROR", log_to_driver=False)
    found = [target.model_dump(mode="json") for target in known_targets()]
    StateFile(submission).write(json.dumps({"targets": found}))


def with_site_defaults(job: JobSpec) -> JobSpec:
    """The job with the cluster's own MLflow server and database where it names none."""
    tracking, database = os.environ.get(TRACKING_VARIABLE), os.environ.get(DATABASE_VARIABLE)
    if tracking and job.tracking.uri is None:
        job = job.model_copy(update={"tracking": job.tracking.model_copy(update={"uri": tracking})})
    if database and job.storage.url is None:
        job = job.model_copy(update={"storage": job.storage.model_copy(update={"url": database})})
    return job


def _board(study: str) -> Board | None:
    from vitsearch.cli.board import Board
    from workers import StateFile, this_submission

    submission = this_submission()
    return None if submission is None else Board(study, StateFile(submission).write)


def _leave(_: int, __: FrameType | None) -> None:
    sys.exit(0)
