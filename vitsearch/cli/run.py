"""``run``, ``resume``, ``validate`` and ``schema``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitsearch.cli.options import (
    JsonFlag,
    Study,
    StudyAddress,
    StudyDatabase,
    Trials,
    Workers,
    print_json,
)

if TYPE_CHECKING:
    from vitsearch.cli.board import Board
    from vitsearch.cli.finding import FoundStudy
    from vitsearch.config import JobSpec
    from vitsearch.storage import StudyStore
    from vitsearch.train.data import ImageData

NAMED_IMAGES = 5


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(run)
    app.command()(resume)
    app.command()(validate)
    app.command()(schema)


def run(
    job_or_folder: Annotated[
        Path,
        typer.Argument(
            metavar="JOB.yaml|FOLDER", help="A job, or a folder of images by class.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="New folder for everything the run makes; not needed with storage.url and storage.artifacts.",
            show_default=False,
        ),
    ] = None,
    trials: Trials = None,
    workers: Workers = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Study seed.", show_default=False)] = None,
    json_output: JsonFlag = False,
) -> None:
    """Search: train, compress and compare candidates; report the Pareto front.

    Ctrl-C once stops cleanly and reports what was found; `vitsearch resume` goes on later.
    """
    from vitsearch.cli.folder_job import job_of_folder
    from vitsearch.cli.head import with_site_defaults
    from vitsearch.cli.job_checks import check_lasting, check_written, checked_data
    from vitsearch.cli.run_folder import new_study, study_folder
    from vitsearch.config import load_job

    job = job_of_folder(job_or_folder) if job_or_folder.is_dir() else load_job(job_or_folder)
    if out is None:
        job = with_site_defaults(job)
        check_lasting(job, str(job_or_folder))
    check_written(job, job_or_folder)
    job = job.with_overrides(trials=trials, workers=workers, seed=seed)
    _check_machine(job, workers)
    data = checked_data(job)
    with study_folder(None if out is None else out.resolve(), job) as folder:  # workers may run in another one
        drive(new_study(job, folder), folder, data, json_output=json_output)


def resume(
    place: Annotated[
        str | None,
        typer.Argument(metavar="[DIR|ID]", help="Folder of a run, or a submission.", show_default=False),
    ] = None,
    trials: Trials = None,
    workers: Workers = None,
    study: Study = None,
    address: StudyAddress = None,
    database: StudyDatabase = None,
    json_output: JsonFlag = False,
) -> None:
    """Go on with a search that was interrupted or killed, or give it a larger budget.

    What job.yaml says of trials, time limit, workers, tracking and the place of the data is taken over; other
    changes need a new study.
    """
    from vitsearch.cli.cluster import resume_submitted
    from vitsearch.cli.finding import in_database, named_place

    named = named_place(place, study, address, database, submissions=True)
    further = Further(trials=trials, workers=workers, json_output=json_output)
    if isinstance(named, Path):
        drive_on(named, further)
    elif named.address is None:
        drive_named(in_database(named.database or "", named.name, named.words), further)
    else:
        resume_submitted(named, trials=trials, workers=workers, json_output=json_output)


@dataclass(frozen=True, kw_only=True)
class Further:
    """How to go on with a study.

    Attributes:
        trials: A larger budget.
        workers: Other trainers.
        json_output: Print the front as JSON.
        board: Shows the search elsewhere too.
    """

    trials: int | None = None
    workers: int | None = None
    json_output: bool = False
    board: Board | None = None


def drive_on(folder: Path, further: Further) -> None:
    """Go on with the study in a folder, with what its job file has changed.

    Args:
        folder: The run's folder.
        further: How to.
    """
    from vitsearch.cli.job_checks import check_tracking
    from vitsearch.cli.resuming import as_written, resumed_job
    from vitsearch.cli.run_folder import JOB_FILE, begun_study, keep_private, write_job
    from vitsearch.search import Places

    folder = folder.resolve()
    store = begun_study(folder)
    stored = store.study().job
    written, notes = resumed_job(stored, folder / JOB_FILE)
    check_tracking(written, folder / JOB_FILE)
    job = written.with_overrides(trials=further.trials, workers=further.workers)
    if job.storage.url is None:
        keep_private(job, folder)
    places = (str(folder), Places.of(stored, folder).root)  # where studies of older versions have their files, too
    data = _take_over(store, stored, job, notes, further, roots=places)
    if job != written:
        write_job(as_written(job, folder / JOB_FILE), folder)
    drive(store, folder, data, json_output=further.json_output, board=further.board)


def drive_named(found: FoundStudy, further: Further) -> None:
    """Go on with a study that has no folder, from what its database and its store of weights hold.

    Args:
        found: The study.
        further: How to.

    Raises:
        InputError: It has a folder, and that must be given.
    """
    from vitsearch.cli.job_checks import check_lasting
    from vitsearch.cli.run_folder import study_folder, write_job
    from vitsearch.errors import InputError

    store = found.store
    stored = store.study().job
    if stored.storage.artifacts is None:
        raise InputError(
            "names a study that has a run's folder, which its database does not tell", field="--study",
            value=stored.name, remedy="give that folder, on a cluster as --study /FOLDER",
        )  # fmt: skip
    check_lasting(stored, f"study {stored.name}")
    job = stored.with_overrides(trials=further.trials, workers=further.workers)
    data = _take_over(store, stored, job, [], further, roots=(found.places.root,))
    with study_folder(None, job) as folder:
        write_job(job, folder)
        drive(store, folder, data, json_output=further.json_output, board=further.board)


def _take_over(
    store: StudyStore, stored: JobSpec, job: JobSpec, notes: list[str], further: Further, *, roots: Sequence[str]
) -> ImageData:
    """Let a study go on with a job that has changed; returns its images."""
    from vitsearch.cli.packing import check_files
    from vitsearch.cli.session import load_data

    _check_machine(job, further.workers)
    for root in roots:
        check_files(job, root)
    begun = sum(trial.kind == "evaluate" for trial in store.trials())
    if further.trials is not None and further.trials <= begun:
        notes.append(f"--trials counts all candidates, and {begun} have begun already: none is added")
    data = load_data(job)
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    if job != stored:
        store.acquire()
        store.set_job(job)
    return data


def validate(
    job: Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The job to check.", show_default=False)],
    data: Annotated[bool, typer.Option("--data", help="Also read its images, teacher and weights.")] = False,
    json_output: JsonFlag = False,
) -> None:
    """Check a job without running it; nothing is created."""
    from vitsearch.cli.job_checks import check_written, checked_data
    from vitsearch.cli.session import summary_of
    from vitsearch.config import load_job
    from vitsearch.space import num_configurations

    spec = load_job(job)
    space = check_written(spec, job, here=False)  # it may be driven elsewhere
    size = num_configurations(space)
    read = summary_of(checked_data(spec)) if data else None
    if json_output:
        found = {} if read is None else {"data": read.model_dump(mode="json")}
        print_json({"valid": True, "name": spec.name, "dimensions": len(space.dimensions), "configurations": size,
                    **found})  # fmt: skip
        return
    typer.echo(
        f"{job}: valid; {spec.search.trials} trials with {spec.search.sampler} over {len(space.dimensions)} axes "
        f"({size:.3g} configurations), objectives {', '.join(spec.objectives)}"
    )
    if read is not None:
        typer.echo(
            f"data: {read.num_train:,} training, {read.num_val:,} validation and {read.num_test:,} test images of "
            f"{len(read.class_names)} classes"
        )
        if read.skipped:
            typer.echo(skipped_note(read.skipped), err=True)


def schema() -> None:
    """Print the JSON schema of job files, for editors."""
    from vitsearch.config import JobSpec

    print_json({"$schema": "https://json-schema.org/draft/2020-12/schema", **JobSpec.model_json_schema()})


def _check_machine(job: JobSpec, option: int | None) -> None:
    """Refuse what this machine cannot give to a search that it drives; ``option`` is ``--workers``."""
    from vitsearch.errors import InputError
    from workers import check_devices, check_workers

    check_devices([target.name for target in job.targets if target.wait_s is None])  # others are done without
    try:
        check_workers(job.search.max_workers)
    except InputError as error:
        error.field = "search.max_workers" if option is None else "--workers"
        raise


def drive(
    store: StudyStore, out: Path, data: ImageData, *, json_output: bool = False, board: Board | None = None
) -> None:
    """Search, show it, and say what was found; ends the process where that is no success.

    Args:
        store: The study.
        out: The run's folder.
        data: Its images.
        json_output: Print the front as JSON.
        board: Shows the search elsewhere too; then the commands to go on with are told there.
    """
    from vitsearch.cli.display import make_display
    from vitsearch.cli.ending import next_steps, why_empty
    from vitsearch.cli.front_table import print_front
    from vitsearch.cli.results import front_json
    from vitsearch.cli.session import failures_explained, search
    from vitsearch.cli.stopping import Stopping
    from vitsearch.search import resume_command

    if data.skipped:
        typer.echo(skipped_note(data.skipped), err=True)
    stopping = Stopping()
    try:
        with stopping, make_display(quiet=json_output) as display, failures_explained(out):
            shown = display if board is None else board.beside(display)
            ended = search(store, out, data, shown, stopping)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; go on with: {resume_command(out)}", err=True)
        sys.exit(stopping.exit_code)
    for problem in ended.problems:
        typer.echo(f"note: {problem}", err=True)
    if json_output:
        print_json({**front_json(ended.report), "ended": ended.reason})
    else:
        print_front(ended.report)
        typer.echo(next_steps(out, ended) if board is None else f"\nended: {ended.reason}")
    if ended.interrupted:
        sys.exit(stopping.exit_code)
    if not ended.report.front:
        typer.echo(f"error: {why_empty(ended.report)}", err=True)
        sys.exit(1)


def skipped_note(skipped: Sequence[str]) -> str:
    """Which broken images a search does without."""
    named = ", ".join(skipped[:NAMED_IMAGES])
    more = f" and {len(skipped) - NAMED_IMAGES} more" if len(skipped) > NAMED_IMAGES else ""
    what = (
        "1 image cannot be decoded and is"
        if len(skipped) == 1
        else f"{len(skipped)} images cannot be decoded and are"
    )
    return f"note: {what} left out: {named}{more}"
