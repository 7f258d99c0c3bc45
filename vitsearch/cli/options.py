"""Arguments that several commands share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from vitsearch.errors import InputError

RunDir = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run (its --out).", show_default=False)]
Folder = Annotated[
    Path | None,
    typer.Argument(metavar="[DIR]", help="Folder of a run (its --out), or give --study.", show_default=False),
]
Address = Annotated[
    str, typer.Option("--address", envvar="RAY_API_SERVER_ADDRESS", help="Dashboard of the Ray cluster.")
]
Study = Annotated[
    str | None,
    typer.Option("--study", help="A study of the cluster at --address, instead of DIR.", show_default=False),
]
Trials = Annotated[int | None, typer.Option("--trials", help="Candidates to train in all.", show_default=False)]
Workers = Annotated[int | None, typer.Option("--workers", help="Trainer processes.", show_default=False)]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


DEFAULT_ADDRESS = "http://127.0.0.1:8265"


@contextmanager
def run_folder(folder: Path | None, study: str | None, address: str, weights: str = "none") -> Iterator[Path]:
    """The folder of a run: the one named, or a copy of a study of a cluster that is gone afterwards.

    Args:
        folder: ``DIR`` as given.
        study: ``--study`` as given.
        address: ``--address``.
        weights: Which weights the copy must hold, as ``pack_study`` takes it.

    Raises:
        InputError: Neither or both are given, or the cluster knows no such study.
        StudyError: The cluster does not answer.
    """
    from vitsearch.cli.remote import copied_study

    if (folder is None) == (study is None):
        raise InputError("needs a run: its folder, or --study NAME with --address of its cluster, not both",
                         remedy="give one of them")  # fmt: skip
    if folder is not None:
        yield folder
    elif study is not None:
        with copied_study(address, study, weights) as copy:
            yield copy


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
