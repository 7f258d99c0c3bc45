"""``up`` and ``down``: Ray, MLflow and PostgreSQL on one machine, for a team that has no cluster."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from vitsearch.cli.options import JsonFlag, print_json
from vitsearch.errors import InputError, StudyError, VitsearchError, holds_password

DEFAULT_FOLDER = Path("~/vitsearch-site")
Folder = Annotated[Path, typer.Option("--dir", help="Where the site keeps its databases, logs and token.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(up)
    app.command()(down)


def up(
    folder: Folder = DEFAULT_FOLDER,
    host: Annotated[
        str | None,
        typer.Option(
            "--host",
            help="Address of this machine to listen on; others reach it there.",
            show_default="127.0.0.1",
        ),
    ] = None,
    cpus: Annotated[
        int | None, typer.Option("--cpus", min=1, help="Processors to lend.", show_default=False)
    ] = None,
    database_file: Annotated[
        Path | None,
        typer.Option(
            "--database-file",
            help="File that holds the URL of a PostgreSQL of yours, instead of one of the site's own.",
            show_default=False,
        ),
    ] = None,
    dashboard_port: Annotated[
        int | None, typer.Option("--dashboard-port", min=1, max=65535, show_default="8265")
    ] = None,
    ray_port: Annotated[int | None, typer.Option("--ray-port", min=1, max=65535, show_default="6379")] = None,
    mlflow_port: Annotated[
        int | None, typer.Option("--mlflow-port", min=1, max=65535, show_default="5000")
    ] = None,
    json_output: JsonFlag = False,
) -> None:
    """Start a whole small site on this machine: a Ray head, an MLflow server and PostgreSQL.

    What runs already is left alone; what has died is started again, with the options that the site began with.
    """
    from vitsearch.cli.services import Settings, Site

    if host in {"0.0.0.0", "::"}:  # noqa: S104 - refused
        raise InputError("must be an address of this machine, since others are told it", field="--host",
                         value=host, remedy="write the one by which they reach it")  # fmt: skip
    if host is not None and ":" in host:  # in Ray's addresses a colon comes before the port
        raise InputError("must be a name or an IPv4 address, as Ray takes them", field="--host", value=host,
                         remedy="write this machine's IPv4 address")  # fmt: skip
    given = {
        "host": host, "dashboard_port": dashboard_port, "ray_port": ray_port, "mlflow_port": mlflow_port,
        "cpus": cpus, "database_url": None if database_file is None else _url_in(database_file),
    }  # fmt: skip
    wanted = Settings.model_validate({name: value for name, value in given.items() if value is not None})
    command = "vitsearch down" + ("" if folder == DEFAULT_FOLDER else f" --dir {shlex.quote(str(folder))}")
    site = Site(folder.expanduser().resolve())
    settings = site.settings_for(wanted, f"leave it out, or stop the site first: {command}")
    site.start(settings, (lambda _: None) if json_output else _tell)
    if json_output:
        print_json({**site.addresses, "token_file": str(site.token_file)})
        return
    typer.echo(f"Ray       {site.addresses['ray']}   (this machine's dashboard and the address for submit)")
    typer.echo(f"MLflow    {site.addresses['mlflow']}")
    typer.echo(f"studies   in {site.addresses['database']}")
    typer.echo("\nsearch with:")
    typer.echo(f"  export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={shlex.quote(str(site.token_file))}")
    typer.echo(f"  export RAY_API_SERVER_ADDRESS={site.addresses['ray']}")
    typer.echo(f"  vitsearch submit JOB.yaml --out {shlex.quote(str(site.folder / 'studies' / 'NAME'))}")
    typer.echo(f"stop with: {command}")


def down(
    folder: Folder = DEFAULT_FOLDER,
    now: Annotated[
        bool, typer.Option("--now", help="Do not wait for running searches to put back trials.")
    ] = False,
) -> None:
    """Stop exactly what `vitsearch up` started there; searches are stopped first, and can be resumed later."""
    from vitsearch.cli.services import Site

    site = Site(folder.expanduser().resolve())
    if not site.exists:
        raise InputError("is no site (no site.json)", where=str(site.folder), field="--dir",
                         remedy="give the --dir of vitsearch up")  # fmt: skip
    if not now:
        _stop_searches(site.addresses.get("ray", ""), site.token_file, _tell)
    stopped = site.stop(_tell)
    typer.echo(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")


def _stop_searches(address: str, token_file: Path, step: Callable[[str], None]) -> None:
    """Let running searches end as `vitsearch stop` would; what cannot be reached has ended."""
    import os
    import time

    from vitsearch.cli.remote import connect

    os.environ.update({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token_file)})
    os.environ.pop("RAY_AUTH_TOKEN", None)
    try:
        cluster = connect(address)
        running = [job for job in cluster.jobs() if not job.has_ended]
        for job in running:
            step(f"stopping {job.id}: its running trials are put back")
            cluster.stop(job)
        deadline = time.monotonic() + 150
        while running and time.monotonic() < deadline:
            time.sleep(0.5)
            running = [job for job in running if not cluster.info(job.id).has_ended]
    except VitsearchError:
        return


def _tell(text: str) -> None:
    typer.echo(f"… {text}", err=True)


def _url_in(file: Path) -> str:
    from vitsearch.config.loading import read_text
    from vitsearch.config.placeholders import is_placeholder
    from vitsearch.storage import check_url

    url = read_text(file).strip()
    try:
        check_url(url)
    except InputError as error:
        error.where, error.field = str(file), "--database-file"
        raise
    if not url.startswith("postgresql"):
        raise StudyError(f"{file}: must hold the URL of a PostgreSQL, which several drivers can use at once")
    if not holds_password(url):
        return url
    elsewhere = f"${{file:{file.resolve()}}}"  # out of the environment that all of the site inherits
    if not is_placeholder(elsewhere):
        raise InputError("must have no blanks, quotes or braces in its path", field="--database-file",
                         value=str(file.resolve()), remedy="move it")  # fmt: skip
    return elsewhere
