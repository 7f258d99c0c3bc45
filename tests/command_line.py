"""The command line, in this process: what starts an interpreter for each command waits for its imports alone."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from subprocess import CompletedProcess
from unittest import mock

from sqlalchemy import Engine

from vitsearch.cli.main import main
from vitsearch.storage import database

PROGRAM = [sys.executable, "-c", "from vitsearch.cli.main import main; main()"]


def vitsearch(*arguments: str | Path) -> CompletedProcess[str]:
    """What a process of its own would print and end with; ``tests/unit/cli/test_commands.py`` compares them."""
    engines: list[Engine] = []

    def opened(*arguments: str) -> Engine:
        engines.append(new_engine(*arguments))
        return engines[-1]

    new_engine = database._new_engine
    written = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
    with (
        mock.patch.object(sys, "argv", ["-c", *map(str, arguments)]),
        mock.patch.object(sys.modules["__main__"], "__package__", None, create=True),  # names the program in usage
        mock.patch.object(
            os, "execve", side_effect=AssertionError("it would take this process for another program")
        ),
        mock.patch.object(database, "_new_engine", opened),
        contextlib.redirect_stdout(written[0]),
        contextlib.redirect_stderr(written[1]),
    ):
        try:
            main()
            code: str | int | None = 0
        except SystemExit as ended:
            code = ended.code
        finally:
            for engine in engines:  # as the end of a process does
                engine.dispose()
    assert isinstance(code, int)
    out, err = (stream.buffer.getvalue().decode() for stream in written)  # type: ignore[attr-defined]
    return CompletedProcess(sys.argv, code, out, err)
