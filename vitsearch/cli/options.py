"""Arguments that several commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from vitsearch.errors import VitsearchError

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
    typer.Option("--study", help="A study by its name, instead of DIR.", show_default=False),
]
StudyAddress = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="Dashboard of the Ray cluster that knows --study; by default RAY_API_SERVER_ADDRESS.",
        show_default=False,
    ),
]
StudyDatabase = Annotated[
    str | None,
    typer.Option(
        "--database",
        help="Database that holds --study (a job's storage.url); by default VITSEARCH_DATABASE_URL.",
        show_default=False,
    ),
]
Trials = Annotated[int | None, typer.Option("--trials", help="Candidates to train in all.", show_default=False)]
Workers = Annotated[int | None, typer.Option("--workers", help="Trainer processes.", show_default=False)]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


DEFAULT_ADDRESS = "http://127.0.0.1:8265"
ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
DATABASE_VARIABLE = "VITSEARCH_DATABASE_URL"
TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"


def print_json(value: Any) -> None:
    """One JSON document on standard output.

    Raises:
        VitsearchError: A figure in it is infinite or none, which JSON has no word for.
    """
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise VitsearchError(f"the answer cannot be told as JSON ({error})") from error
    typer.echo(text)
