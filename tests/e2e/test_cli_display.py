"""What a search shows in a terminal, through a real pseudo-terminal."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.command_line import PROGRAM
from tests.e2e.harness import ENVIRONMENT, write_job

pytestmark = pytest.mark.xdist_group("e2e-display")
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def in_a_terminal(*arguments: str | Path) -> tuple[int, str]:
    """Exit code and everything written to a terminal of 180 columns."""
    ours, theirs = os.openpty()
    environment = {**ENVIRONMENT, "TERM": "xterm-256color", "COLUMNS": "180", "LINES": "40"}
    with subprocess.Popen(
        [*PROGRAM, *map(str, arguments)], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        chunks = []
        with contextlib.suppress(OSError):  # the other end was closed
            while chunk := os.read(ours, 65536):
                chunks.append(chunk)
        os.close(ours)
    return process.returncode, b"".join(chunks).decode()


@pytest.mark.slow
def test_a_terminal_shows_a_live_table(tmp_path: Path) -> None:
    job = write_job(tmp_path, search={"trials": 4}, train={"epochs": 4, "early_stop": False})
    code, shown = in_a_terminal("run", job, "--out", tmp_path / "out")
    text = CONTROL.sub("", shown)
    assert code == 0, text
    assert "\x1b[1A" in shown  # drawn over itself
    assert re.search(r"worker +trial +candidate +epoch +accuracy", text)
    assert re.search(r"w[01] +\d+ +d\d w\d+ .*[1-4]/4 +[━╸╺]{20} +\d+\.\d %", text)
    assert re.search(r"^\r*[━╸╺]{60}\r?$", text, re.MULTILINE)
    assert re.search(
        r"[1-3]/4 trials · front \d · best accuracy \d+\.\d % · hypervolume \S+ .*· elapsed .* · left about \d",
        text,
    )
    assert "… starting workers on Ray" in text
    assert "Pareto front of tiny" in text
