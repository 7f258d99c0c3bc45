"""``submit``, ``list``, ``status``, ``logs``, ``watch`` and ``stop``: searches on a cluster."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from vitsearch.cli.options import (
    DEFAULT_ADDRESS,
    Address,
    JsonFlag,
    StudyDatabase,
    Trials,
    Workers,
    print_json,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from vitsearch.cli.finding import StudyName
    from vitsearch.cli.remote import Stored
    from vitsearch.messages import LiveState
    from workers import Cluster, Submitted

POLL_S = 1.0
LINE_EVERY_S = 10.0
STOP_PATIENCE_S = 150.0
LISTED = 30

Submission = Annotated[
    str, typer.Argument(metavar="ID", help="A submission, or a study for its latest one.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (submit, status, logs, watch, stop):
        app.command()(command)
    app.command("list")(list_)


def submit(
    job: Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The job.", show_default=False)],
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            help="New folder on the cluster, absolute; not needed with storage.url and storage.artifacts.",
            show_default=False,
        ),
    ] = None,
    address: Address = DEFAULT_ADDRESS,
    trials: Trials = None,
    workers: Workers = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Study seed.", show_default=False)] = None,
    wait: Annotated[bool, typer.Option(help="Wait until its trials run, and say what goes wrong before.")] = True,
    json_output: JsonFlag = False,
) -> None:
    """Search on a Ray cluster; the code and the job travel there.

    Files that the job names by relative paths travel too; absolute ones are looked for on the cluster.
    """
    from vitsearch.cli.job_checks import check_lasting, check_space, passwords_that_travel
    from vitsearch.cli.remote import begin, connect
    from vitsearch.config import read_job
    from vitsearch.config.addresses import check_addresses
    from vitsearch.errors import InputError

    if out is not None and not out.startswith("/"):
        raise InputError("must be an absolute folder on the cluster", field="--out", value=out,
                         remedy="write it from the root on, such as /data/studies/NAME")  # fmt: skip
    spec = read_job(job)
    check_addresses(spec, where=str(job))
    if out is None:
        check_lasting(spec, str(job), on_cluster=True)
    check_space(spec, job)
    for note in passwords_that_travel(spec):
        typer.echo(f"note: {note}", err=True)
    spec = spec.with_overrides(trials=trials, workers=workers, seed=seed)
    cluster = connect(address)
    found = begin(cluster, spec, out, folder=job.resolve().parent, where=str(job))
    state = _begun(cluster, found, wait=wait, quiet=json_output)
    page = _page(state, spec.tracking.uri if spec.tracking.enabled else None)
    if json_output:
        print_json(_submitted_facts(cluster, found, state, page))
        return
    if page or (out and spec.tracking.enabled):
        typer.echo(f"MLflow    {page or f'kept in {out} on the cluster (the job names no tracking.uri)'}")
    typer.echo(_hints(cluster, found))


def list_(address: Address = DEFAULT_ADDRESS, json_output: JsonFlag = False) -> None:
    """List the searches of a cluster, latest first."""
    from rich.table import Table

    from vitsearch.cli.remote import connect, state_of
    from vitsearch.cli.screen import day_and_time, screen

    cluster = connect(address)
    jobs = cluster.jobs()
    if json_output:
        print_json([_facts(cluster, job, state_of(cluster, job)) for job in jobs])
        return
    if not jobs:
        typer.echo(f"nothing was submitted to {cluster.address} yet; begin with: vitsearch submit JOB.yaml")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("id", "state", "trials", "front", "best accuracy", "submitted", "folder"):
        table.add_column(column, no_wrap=column in {"id", "state"}, overflow="fold")
    for job in jobs[:LISTED]:
        state = state_of(cluster, job)
        progress = state.progress if state else None
        best = progress.best_accuracy if progress else None
        table.add_row(
            job.id,
            job.status.lower(),
            f"{progress.ended}/{progress.trials}" if progress else "",
            str(progress.front) if progress else "",
            "" if best is None else f"{100 * best:.1f} %",
            day_and_time(job.submitted_at),
            job.out,
        )
    screen(pipe_width=160).print(table)
    if len(jobs) > LISTED:
        typer.echo(f"and {len(jobs) - LISTED} older ones (--json lists all)")


def status(
    submission: Submission,
    address: Address = DEFAULT_ADDRESS,
    database: StudyDatabase = None,
    json_output: JsonFlag = False,
) -> None:
    """Say where a search stands."""
    from vitsearch.cli.finding import StudyName
    from vitsearch.cli.remote import Stored, connect, job_or_stored, last_error, state_of

    cluster = connect(address)
    job = job_or_stored(cluster, StudyName.of(submission, address, database))
    if isinstance(job, Stored):
        if json_output:
            print_json(_stored_facts(cluster, job))
        else:
            _say_stored(job)
        return
    state = state_of(cluster, job)
    words = (last_error(cluster.log(job)) or job.message) if job.status == "FAILED" else ""
    if json_output:
        print_json({**_facts(cluster, job, state), "error": words})
        return
    typer.echo(f"{job.id}: {job.status.lower()}; study {job.study} in {job.out or 'its database'}")
    for line in _state_lines(state):
        typer.echo(line)
    if words:
        typer.echo(f"error: {words}")


def logs(
    submission: Submission,
    address: Address = DEFAULT_ADDRESS,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the search ends.")] = False,
) -> None:
    """Print what a search has said."""
    from vitsearch.cli.remote import connect

    cluster = connect(address)
    job = cluster.job(submission)
    if not follow:
        typer.echo(cluster.log(job), nl=False)
        return
    for text in cluster.follow(job):
        typer.echo(text, nl=False)


def watch(submission: Submission, address: Address = DEFAULT_ADDRESS, database: StudyDatabase = None) -> None:
    """Show a search live, until it ends; Ctrl-C leaves it running."""
    from vitsearch.cli.finding import StudyName
    from vitsearch.cli.remote import Stored, connect, job_or_stored, raise_if_failed, state_of

    cluster = connect(address)
    job = job_or_stored(cluster, StudyName.of(submission, address, database))
    if isinstance(job, Stored):
        _say_stored(job)
        return
    try:
        with _screen() as show:
            while not job.has_ended:
                state = state_of(cluster, job)
                show(_view(state, job), _state_lines(state))
                time.sleep(POLL_S)
                job = cluster.info(job.id)
    except KeyboardInterrupt:
        _say_it_goes_on(cluster, job)
        raise
    raise_if_failed(cluster, job)
    for line in (f"{job.id}: {job.status.lower()}", *_state_lines(state_of(cluster, job))):
        typer.echo(line)
    typer.echo(_after(cluster, job))


def stop(submission: Submission, address: Address = DEFAULT_ADDRESS) -> None:
    """Stop a search as Ctrl-C would: running trials are put back, and `vitsearch resume` goes on later."""
    from vitsearch.cli.remote import connect, state_of
    from vitsearch.errors import StudyError

    cluster = connect(address)
    job = cluster.job(submission)
    if job.has_ended:
        typer.echo(f"{job.id} has ended already ({job.status.lower()})")
        return
    cluster.stop(job)
    step, deadline = _step(quiet=False), time.monotonic() + STOP_PATIENCE_S
    step("stopping: running trials are put back")
    while not job.has_ended and time.monotonic() < deadline:
        time.sleep(POLL_S)
        job = cluster.info(job.id)
    if not job.has_ended:
        raise StudyError(
            f"{job.id} has not ended in {STOP_PATIENCE_S:g} s and is {job.status.lower()}; it was asked to; look "
            f"again with: vitsearch status {_words(cluster, job)}"
        )
    typer.echo(f"{job.id}: {job.status.lower()}")
    for line in _state_lines(state_of(cluster, job)):
        typer.echo(line)
    typer.echo(f"go on with: vitsearch resume {_words(cluster, job)}")


def resume_submitted(named: StudyName, *, trials: int | None, workers: int | None, json_output: bool) -> None:
    """Submit the rest of a study of a cluster; the ``resume`` command for one that was submitted."""
    from vitsearch.cli.remote import connect, go_on, place_of

    cluster = connect(named.address or "")
    found = go_on(cluster, place_of(cluster, named), trials=trials, workers=workers)
    state = _begun(cluster, found, wait=True, quiet=json_output)
    page = _page(state, None)
    if json_output:
        print_json(_submitted_facts(cluster, found, state, page))
        return
    if page:
        typer.echo(f"MLflow    {page}")
    typer.echo(_hints(cluster, found))


def _begun(cluster: Cluster, job: Submitted, *, wait: bool, quiet: bool) -> LiveState | None:
    """Say what was submitted and, if it is waited for, what keeps it; returns its state once its trials run."""
    from vitsearch.cli.remote import wait_until_begun

    if not quiet:
        typer.echo(f"submitted {job.id}")
    if not wait:
        return None
    try:
        state = wait_until_begun(cluster, job, _step(quiet=quiet))
    except KeyboardInterrupt:
        _say_it_goes_on(cluster, job)
        raise
    if state is None:
        status = cluster.info(job.id).status.lower()
        typer.echo(f"note: {job.id} has not begun yet ({status})", err=True)
    return state


def _submitted_facts(cluster: Cluster, job: Submitted, state: LiveState | None, page: str) -> dict[str, Any]:
    return {
        "id": job.id, "study": job.study, "out": job.out or None, "address": cluster.address, "mlflow": page,
        "begun": state is not None,
    }  # fmt: skip


def _say_stored(stored: Stored) -> None:
    from vitsearch.cli.display import headline

    typer.echo(f"{stored.study}: {stored.state}; no submission of this cluster drives it")
    if stored.progress is not None:
        typer.echo(headline(stored.progress))


def _facts(cluster: Cluster, job: Submitted, state: LiveState | None) -> dict[str, Any]:
    return {
        "id": job.id, "study": job.study, "out": job.out, "address": cluster.address, "status": job.status,
        "submitted_at": job.submitted_at, "ended_at": job.ended_at, "message": job.message,
        "state": None if state is None else state.model_dump(mode="json"),
    }  # fmt: skip


def _stored_facts(cluster: Cluster, stored: Stored) -> dict[str, Any]:
    """The same keys for a study that no submission of this cluster drives."""
    from vitsearch.messages import LiveState

    state = LiveState(study=stored.study, progress=stored.progress, ended=stored.state)
    return {
        "id": None, "study": stored.study, "out": "", "address": cluster.address, "status": None,
        "submitted_at": None, "ended_at": None, "message": "no submission of this cluster drives it",
        "state": state.model_dump(mode="json"), "error": "",
    }  # fmt: skip


def _state_lines(state: LiveState | None) -> list[str]:
    from vitsearch.cli.display import headline

    if state is None:
        return []
    lines = [headline(state.progress)] if state.progress else []
    lines += [f"… {state.step}"] if state.step else []
    lines += [f"ended: {state.ended}"] if state.ended else []
    return lines + ([f"MLflow    {state.browse_url}"] if state.browse_url else [])


def _view(state: LiveState | None, job: Submitted) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from vitsearch.cli.display import live_view

    parts: list[RenderableType] = []
    if state is None:
        parts.append(Text(f"… {job.id} is {job.status.lower()}", style="dim"))
    else:
        parts += [Text(state.notice, style="bold yellow")] if state.notice else []
        parts += [Text(f"… {state.step}", style="dim")] if state.step else []
        parts += [live_view(state.progress)] if state.progress and not state.step else []
    return Group(*parts)


class _screen:  # noqa: N801 - used as a function
    """A live view in a terminal, else a line whenever something has changed and at least every ten seconds."""

    def __init__(self) -> None:
        from rich.live import Live

        from vitsearch.cli.screen import screen

        on_screen = sys.stdout.isatty()
        self._live = Live(console=screen(), refresh_per_second=4, transient=True) if on_screen else None
        self._lines: list[str] = []
        self._at = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, view: RenderableType, lines: list[str]) -> None:
        if self._live is not None:
            self._live.update(view)
        elif lines and lines[:1] != self._lines[:1] and time.monotonic() - self._at > LINE_EVERY_S:
            self._lines, self._at = lines, time.monotonic()
            typer.echo(lines[0])


def _step(*, quiet: bool) -> Any:
    return (lambda _: None) if quiet else (lambda text: typer.echo(f"… {text}", err=True))


def _page(state: LiveState | None, uri: str | None) -> str:
    from vitsearch.errors import hide_password
    from vitsearch.tracking import experiments_url

    if state is not None and state.browse_url:
        return state.browse_url
    if uri is None:
        return ""
    return experiments_url(uri) if uri.startswith(("http://", "https://")) else hide_password(uri)


def _hints(cluster: Cluster, job: Submitted) -> str:
    words = _words(cluster, job)
    return f"watch     vitsearch watch {words}\nstop      vitsearch stop {words}\n{_after(cluster, job)}"


def _words(cluster: Cluster, job: Submitted) -> str:
    """What names a submission on a command line."""
    return f"{shlex.quote(job.id)} --address {shlex.quote(cluster.address)}"


def _after(cluster: Cluster, job: Submitted) -> str:
    at = f"--address {shlex.quote(cluster.address)} --study {shlex.quote(job.study)}"
    return f"front     vitsearch pareto {at}\nexport    vitsearch export {at} --select knee --out bundle"


def _say_it_goes_on(cluster: Cluster, job: Submitted) -> None:
    typer.echo(f"{job.id} goes on; stop it with: vitsearch stop {_words(cluster, job)}", err=True)
