"""The command line: ``vitsearch COMMAND``. Exit codes: 0 done, 1 failed, 2 bad input, 130 Ctrl-C, 143 SIGTERM."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TextIO

import typer

from vitsearch import __version__
from vitsearch.cli import cluster, cost, explore, results, run, serve, show, site, targets
from vitsearch.errors import VitsearchError, first_line, hide_passwords

app = typer.Typer(
    name="vitsearch",
    help="Find the best Vision Transformers for your own images, device and budget.",
    epilog="Exit codes: 0 done, 1 failed, 2 bad input, 130 Ctrl-C, 143 SIGTERM.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for module in (run, results, show, cluster, site, targets, cost, explore, serve):
    module.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vitsearch {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    run_app(app)


def run_app(commands: typer.Typer) -> None:
    """Run commands and turn our errors into one message and an exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            errors="backslashreplace"
        )  # as stderr: what a cluster says may hold half characters
    try:
        try:
            commands()
        finally:
            sys.stdout.flush()  # a full disk is told here rather than by the interpreter's last words
    except VitsearchError as error:
        if os.environ.get("VITSEARCH_DEBUG"):
            raise
        typer.echo(f"error: {hide_passwords(str(error))}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe has left: nobody to tell
        sys.exit(1)
    except OSError as error:
        if os.environ.get("VITSEARCH_DEBUG"):
            raise
        place = error.filename or ("the output cannot be written" if _is_stuck(sys.stdout) else "")
        reason = hide_passwords(f"{place}: {error.strerror or error}" if place else str(error.strerror or error))
        typer.echo(f"error: {reason}", err=True)
        with suppress(OSError):  # what is still buffered can be written nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if os.environ.get("VITSEARCH_DEBUG") or not _is_of_a_database(error):
            raise
        reason = first_line(getattr(error, "orig", None) or error)
        typer.echo(f"error: the study's database failed ({reason}); nothing stored is lost", err=True)
        sys.exit(1)


def _is_of_a_database(error: Exception) -> bool:
    """Whether a database has raised it; what has loaded none is spared that."""
    storage = sys.modules.get("vitsearch.storage")
    return storage is not None and isinstance(error, storage.DatabaseError)


def _is_stuck(stream: TextIO) -> bool:
    """Whether what a stream has been given can be written nowhere; a network's errors name no file either."""
    try:
        stream.flush()
    except OSError:
        return True
    return False
