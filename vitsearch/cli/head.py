"""What submitted jobs do on the cluster; people use ``vitsearch submit`` and its like."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from vitsearch.cli.options import DATABASE_VARIABLE, TRACKING_VARIABLE
from vitsearch.cli.packing import DATABASE_NAME, FILES, JOB_NAME
from vitsearch.errors import holds_password

if TYPE_CHECKING:
    from vitsearch.cli.board import Board
    from vitsearch.cli.finding import FoundStudy
    from vitsearch.config import JobSpec

HANDED_OUT_FOR_S = 3600.0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)
Out = Annotated[Path | None, typer.Option("--out")]
Name = Annotated[str, typer.Option("--study")]


@app.command()
def run(out: Out = None) -> None:
    """Begin the study of the package's job."""
    from vitsearch.cli.job_checks import check_lasting, check_written, checked_data
    from vitsearch.cli.packing import copy_files, keep_files
    from vitsearch.cli.run import drive
    from vitsearch.cli.run_folder import new_study, study_folder
    from vitsearch.config import read_job
    from vitsearch.search import Places

    written = with_site_defaults(read_job(Path(JOB_NAME)))
    if out is None:
        check_lasting(written, JOB_NAME)
    job = written.resolve_paths(Path.cwd())
    check_written(job, Path(JOB_NAME))
    data = checked_data(job)
    with study_folder(out, job) as folder:
        # the package goes when the job ends, and a resume needs its files again; trainers read them where the
        # weights are, which may be all that they see
        if written.storage.artifacts is None:
            root, lasting = str(folder), written.resolve_paths(folder)
        else:
            root = Places.of(written, folder).root
            lasting = written.with_paths(keep_files(Path(FILES), root))
        store = new_study(lasting, folder)
        copy_files(Path(FILES), root)
        if out is None:
            _remember_database(job.name, written.storage.url or "")
        drive(store, folder, data, board=_board(job.name))


@app.command()
def resume(
    out: Out = None,
    study: Name = "",
    trials: Annotated[int | None, typer.Option("--trials")] = None,
    workers: Annotated[int | None, typer.Option("--workers")] = None,
) -> None:
    """Go on with a study of this cluster."""
    from vitsearch.cli.run import Further, drive_named, drive_on
    from vitsearch.cli.run_folder import begun_study

    if out is not None:
        board = _board(begun_study(out).study().name)
        drive_on(out, Further(trials=trials, workers=workers, board=board))
        return
    with _on_ray():
        found = _named(study)
    drive_named(found, Further(trials=trials, workers=workers, board=_board(study)))


@app.command()
def hand_out(
    out: Out = None, study: Name = "", weights: Annotated[str, typer.Option("--weights")] = "none"
) -> None:
    """Pack a copy of a study, and keep it where the Jobs API hands it out until the job is stopped."""
    import ray

    from vitsearch.cli.copying import pack_study
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
        facts = pack_study(_opened(out, study), weights, file)
        StateFile(submission).write(json.dumps({**facts, "file": file.name}))
        time.sleep(HANDED_OUT_FOR_S)
    finally:
        with suppress(OSError):
            file.unlink()


@app.command()
def find(out: Out = None, study: Name = "") -> None:
    """Look a study up that no submission of this cluster is known to drive, and tell where it stands."""
    from vitsearch.cli.remote import Stored
    from vitsearch.errors import InputError, StudyError
    from vitsearch.report import StudyReport
    from vitsearch.report.progress import stored_progress
    from workers import StateFile, this_submission

    submission = this_submission()
    if submission is None:
        raise StudyError("only a submitted job looks for a study")
    with _on_ray():
        try:
            store = _opened(out, study).store
        except (InputError, StudyError) as error:
            told = _only_begun(out)
            if told is None and isinstance(error, StudyError):
                raise
            StateFile(submission).write(told or json.dumps({"unknown": str(error)}))
            return
        record = store.study()
        progress = None if record.data is None else stored_progress(StudyReport.load(store))
        answer = Stored(study=record.name, state=record.state, progress=progress)
        StateFile(submission).write(answer.model_dump_json())


def _only_begun(out: Path | None) -> str | None:
    """What is told of a study whose driver died while it made the folder: its name, for whoever resumes it."""
    from vitsearch.cli.remote import Stored
    from vitsearch.cli.run_folder import JOB_FILE, has_only_begun
    from vitsearch.config import load_job
    from vitsearch.errors import InputError

    with suppress(InputError):
        if out is not None and has_only_begun(out):
            return Stored(study=load_job(out / JOB_FILE).name, state="created").model_dump_json()
    return None


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
    """The job with the cluster's own MLflow server and database where it names none.

    An address with a password is left where it stands: the job names the variable.
    """
    tracking, database = _site_address(TRACKING_VARIABLE), _site_address(DATABASE_VARIABLE)
    if tracking and job.tracking.uri is None:
        job = job.model_copy(update={"tracking": job.tracking.model_copy(update={"uri": tracking})})
    if database and job.storage.url is None:
        job = job.model_copy(update={"storage": job.storage.model_copy(update={"url": database})})
    return job


def _site_address(variable: str) -> str | None:
    address = os.environ.get(variable) or None
    return f"${{{variable}}}" if address and holds_password(address) else address


def _opened(out: Path | None, study: str) -> FoundStudy:
    """A study in its folder, or by its name where it has none; see ``_named``."""
    from vitsearch.cli.finding import in_folder

    return _named(study) if out is None else in_folder(out)


def _named(study: str) -> FoundStudy:
    """A study by its name, in the first database that holds it: the client's, the submission's, this head's own.

    Raises:
        InputError: None of them does.
        StudyError: One of them cannot be reached, and the others do not.
        MissingExtraError: Its driver is not installed here, and the others do not.
    """
    from vitsearch.cli.finding import in_database
    from vitsearch.errors import InputError, VitsearchError
    from workers import remembered

    sent = Path(DATABASE_NAME)
    urls = [
        sent.read_text(encoding="utf-8") if sent.is_file() else None,
        remembered(study),
        os.environ.get(DATABASE_VARIABLE),
    ]
    problems: list[VitsearchError] = []
    for url in dict.fromkeys(url for url in urls if url):
        try:
            return in_database(url, study)
        except VitsearchError as error:
            problems.append(error)
    for problem in problems:
        if not isinstance(problem, InputError):  # it may well hold the study
            raise problem
    raise InputError(
        "is in no database that this cluster knows" + "".join(f" ({problem})" for problem in problems),
        field="--study", value=study,
        remedy=f"give --database URL, or set {DATABASE_VARIABLE} here or on the head",
    )  # fmt: skip


def _remember_database(study: str, url: str) -> None:
    from workers import remember

    with suppress(OSError), _on_ray():
        remember(study, url)


@contextmanager
def _on_ray() -> Iterator[None]:
    import ray

    ray.init(logging_level="ERROR", log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


def _board(study: str) -> Board | None:
    from vitsearch.cli.board import Board
    from workers import StateFile, this_submission

    submission = this_submission()
    return None if submission is None else Board(study, StateFile(submission).write)


def _leave(_: int, __: FrameType | None) -> None:
    sys.exit(0)
