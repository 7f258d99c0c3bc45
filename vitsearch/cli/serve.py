"""``ui``: MLflow on a run's folder."""

from __future__ import annotations

import os
import shlex
from typing import Annotated

import typer

from vitsearch.cli.options import RunDir


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(ui)


def ui(folder: RunDir, port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 5000) -> None:
    """Browse a run in MLflow; serves this machine only, until Ctrl-C."""
    from vitsearch.cli.ports import is_free
    from vitsearch.cli.run_folder import open_study
    from vitsearch.errors import InputError, StudyError
    from vitsearch.tracking import SERVER_SETTINGS, server_command, study_url

    job = open_study(folder).study().job
    if not job.tracking.enabled:
        raise InputError("was not recorded in MLflow (tracking.enabled: false)", where=str(folder),
                         remedy=f"look at it with: vitsearch pareto {shlex.quote(str(folder))}")  # fmt: skip
    if job.tracking.uri is not None:
        typer.echo(f"this run is tracked elsewhere: {study_url(job.tracking.uri, folder, job)}")
        return
    if not is_free(port):
        raise StudyError(f"port {port} is taken on this machine; choose another with --port")
    command = server_command(folder, port)
    typer.echo(f"open {study_url(f'http://127.0.0.1:{port}', folder, job)}   (Ctrl-C stops)")
    os.execve(command[0], command, {**os.environ, **SERVER_SETTINGS})  # noqa: S606 - the server takes this process's place, and its signals
