"""``run``, ``resume``, ``validate`` and ``schema``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitsearch.cli.options import JsonFlag, RunDir, print_json

if TYPE_CHECKING:
    from vitsearch.config import JobSpec, TargetSpec, TrainSpec
    from vitsearch.space import SearchSpace
    from vitsearch.storage import StudyStore
    from vitsearch.train.data import ImageData

NAMED_IMAGES = 5
Trials = Annotated[int | None, typer.Option("--trials", help="Candidates to train in all.", show_default=False)]
Workers = Annotated[int | None, typer.Option("--workers", help="Trainer processes.", show_default=False)]


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
        Path, typer.Option("--out", help="New folder for everything the run makes.", show_default=False)
    ],
    trials: Trials = None,
    workers: Workers = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Study seed.", show_default=False)] = None,
    json_output: JsonFlag = False,
) -> None:
    """Search: train, compress and compare candidates; report the Pareto front.

    Ctrl-C once stops cleanly and reports what was found; `vitsearch resume` goes on later.
    """
    from vitsearch.cli.folder_job import job_of_folder
    from vitsearch.cli.session import load_data, new_study, summary_of
    from vitsearch.cli.teaching import check_named, check_networks
    from vitsearch.config import load_job
    from vitsearch.report import space_of

    job = job_of_folder(job_or_folder) if job_or_folder.is_dir() else load_job(job_or_folder)
    space = check_space(job, job_or_folder)
    check_storage(job, job_or_folder)
    check_named(space, job.train, job_or_folder)
    job = job.with_overrides(trials=trials, workers=workers, seed=seed)
    _check_workers(job, workers)
    data = load_data(job)
    space = space_of(job, summary_of(data), checked=True)  # what is impossible is told before anything is made
    check_networks(space, job.train, data)
    out = out.resolve()  # workers may run in another folder
    store = new_study(job, out)
    _drive(store, out, data, json_output=json_output)


def resume(
    folder: RunDir,
    trials: Trials = None,
    workers: Workers = None,
    json_output: JsonFlag = False,
) -> None:
    """Go on with a search that was interrupted or killed, or give it a larger budget.

    What job.yaml says of trials, time limit, workers, tracking and the place of the data is taken over; other
    changes need a new study.
    """
    from vitsearch.cli.resuming import as_written, resumed_job
    from vitsearch.cli.session import JOB_FILE, load_data, open_study, write_job

    folder = folder.resolve()
    store = open_study(folder)
    stored = store.study().job
    written, notes = resumed_job(stored, folder / JOB_FILE)
    job = written.with_overrides(trials=trials, workers=workers)
    _check_workers(job, workers)
    begun = sum(trial.kind == "evaluate" for trial in store.trials())
    if trials is not None and trials <= begun:
        notes.append(f"--trials counts all candidates, and {begun} have begun already: none is added")
    data = load_data(job)
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    if job != stored:
        store.acquire()
        store.set_job(job)
    if job != written:
        write_job(as_written(job, folder / JOB_FILE), folder)
    _drive(store, folder, data, json_output=json_output)


def validate(
    job: Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The job to check.", show_default=False)],
    data: Annotated[bool, typer.Option("--data", help="Also read its images, teacher and weights.")] = False,
    json_output: JsonFlag = False,
) -> None:
    """Check a job without running it; nothing is created."""
    from vitsearch.cli.session import load_data, summary_of
    from vitsearch.cli.teaching import check_named, check_networks
    from vitsearch.config import load_job
    from vitsearch.report import space_of
    from vitsearch.space import num_configurations

    spec = load_job(job)
    space = check_space(spec, job)
    check_storage(spec, job)
    check_named(space, spec.train, job)
    size = num_configurations(space)
    images = load_data(spec) if data else None
    read = summary_of(images) if images is not None else None
    if images is not None and read is not None:
        check_networks(space_of(spec, read, checked=True), spec.train, images)
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


def check_space(job: JobSpec, where: Path) -> SearchSpace:
    """The space a job describes, before its data is known.

    Raises:
        InputError: The space is impossible; the message names the file.
    """
    from vitsearch.cli.teaching import check_students
    from vitsearch.space import SearchSpace, resolve_preset

    spec = resolve_preset(job.space, where=str(where))
    space = SearchSpace(spec, in_chans=job.dataset.in_chans or 3, num_classes=10, where=str(where))
    check_recipe(space, job.train, where)
    check_students(space, job.train, where)
    check_runtimes(space, job.targets, where)
    return space


def check_runtimes(space: SearchSpace, targets: Sequence[TargetSpec], where: Path) -> None:
    """Refuse a target none of whose runtimes executes some candidate of the space.

    Raises:
        InputError: The message names the file, the runtime and the bits.
    """
    from vitsearch.config import RUNTIMES
    from vitsearch.errors import InputError

    for number, target in enumerate(targets):
        kinds = [RUNTIMES[name] for name in (target.runtime, *target.also)]
        executed = {kind.bits for kind in kinds if kind.bits is not None}
        if any(kind.bits is None for kind in kinds):
            continue
        for setting in ("precision.weight_bits", "precision.activation_bits"):
            drawn = {int(bits) for bits in space.values_of(setting) or (32,)}
            other = sorted(drawn - executed)
            if other:
                raise InputError(
                    f"{target.runtime} executes {_numbers(executed)} bits only, but {setting} can be "
                    f"{_numbers(other)}",
                    where=str(where), field=f"targets.{number}.runtime",
                    remedy=f"fix {setting}: {min(executed)} in the space, or add a float runtime to also",
                )  # fmt: skip


def _numbers(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def check_recipe(space: SearchSpace, train: TrainSpec, where: Path) -> None:
    """Refuse a learning rate that rises, and a recipe without the epochs that a technique has to learn in.

    Raises:
        InputError: The message names the file, and the technique.
    """
    from vitsearch.candidate import LEARNING_EPOCHS, LEARNING_PRUNERS, SCORES, TOKEN_RULES
    from vitsearch.errors import InputError
    from vitsearch.space import recipes

    for recipe in recipes(space, train).values():
        if recipe.min_lr > recipe.lr:
            raise InputError(f"must be at most lr, which can be {recipe.lr:g}", where=str(where),
                             field="train.min_lr", value=recipe.min_lr, remedy="write a smaller one")  # fmt: skip

    reducers = {name for name, rule in TOKEN_RULES.items() if rule.examples()[0].learns}
    scores = {name for name, kind in SCORES.items() if kind.learns}
    needed = (
        ("tokens.reducer", reducers, "finetune_epochs", 1),
        ("tokens.score", scores, "finetune_epochs", 1),
        ("sparsity.method", LEARNING_PRUNERS, "finetune_epochs", LEARNING_EPOCHS),
        ("precision.training", {"ste", "lsq"}, "qat_epochs", 1),
    )
    for setting, names, epochs, least in needed:
        drawn = sorted(names & {str(value) for value in space.values_of(setting)})
        if drawn and getattr(train, epochs) < least:
            raise InputError(
                f"must be {least} or more, because {setting} can be {drawn[0]}, which trains in these epochs",
                where=str(where), field=f"train.{epochs}", value=getattr(train, epochs),
                remedy=f"write {least} or more, or leave {drawn[0]} out of the space",
            )  # fmt: skip


def check_storage(job: JobSpec, where: Path) -> None:
    """Refuse a database's address that cannot be one, before anything is created.

    Raises:
        InputError: The message names the file.
        MissingExtraError: Its driver comes with an extra.
    """
    from vitsearch.errors import InputError
    from vitsearch.storage import check_url

    try:
        if job.storage.url is not None:
            check_url(job.storage.url)
    except InputError as error:
        error.where = str(where)
        raise


def _check_workers(job: JobSpec, option: int | None) -> None:
    from vitsearch.errors import InputError
    from workers import check_workers

    try:
        check_workers(job.search.workers)
    except InputError as error:
        error.field = "search.workers" if option is None else "--workers"
        raise


def _drive(store: StudyStore, out: Path, data: ImageData, *, json_output: bool) -> None:
    from vitsearch.cli.display import make_display
    from vitsearch.cli.ending import next_steps, why_empty
    from vitsearch.cli.front_table import print_front
    from vitsearch.cli.results import front_json
    from vitsearch.cli.session import failures_explained, search
    from vitsearch.cli.stopping import Stopping

    if data.skipped:
        typer.echo(skipped_note(data.skipped), err=True)
    stopping = Stopping()
    try:
        with stopping, make_display(quiet=json_output) as display, failures_explained(out):
            ended = search(store, out, data, display, stopping)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; go on with: vitsearch resume {shlex.quote(str(out))}", err=True)
        sys.exit(stopping.exit_code)
    for problem in ended.problems:
        typer.echo(f"note: {problem}", err=True)
    if json_output:
        print_json({**front_json(ended.report), "ended": ended.reason})
    else:
        print_front(ended.report)
        typer.echo(next_steps(out, ended))
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
