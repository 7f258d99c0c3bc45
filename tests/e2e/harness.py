"""Real searches in real processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from tests.command_line import PROGRAM, vitsearch
from vitsearch.testing import front_of_results

JOB: dict[str, Any] = {
    "name": "tiny",
    "dataset": {"kind": "digits", "max_images": 300},
    "space": "vit_micro_8",
    "search": {"sampler": "nsga2", "trials": 6, "max_workers": 2},
    "train": {"epochs": 2, "autocast": "fp32"},
    "final": {"retrain": "none"},
    "tracking": {"enabled": False},
    "seed": 3,
}
RESULTS = "SELECT trial, outcome, figures FROM results"
OBJECTIVES = {"accuracy": True, "eer_pct": False}
ENVIRONMENT = {**os.environ, "RAY_DISABLE_IMPORT_WARNING": "1"}


def write_job(folder: Path, **overrides: Any) -> Path:
    job = {
        key: {**value, **overrides.pop(key, {})} if isinstance(value, dict) else value
        for key, value in JOB.items()
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump({**job, **overrides}), encoding="utf-8")
    return path


def run(*arguments: str | Path, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
    command = [*PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, env=ENVIRONMENT)


def start(*arguments: str | Path, stderr: int = subprocess.STDOUT) -> subprocess.Popen[str]:
    command = [*PROGRAM, *map(str, arguments)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )


def front(out: Path) -> dict[str, Any]:
    found = vitsearch("pareto", out, "--json")
    assert found.returncode == 0, found.stderr
    loaded: dict[str, Any] = json.loads(found.stdout)
    return loaded


def query(out: Path, sql: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(f"file:{out / 'study.db'}?mode=ro", uri=True)) as connection:
        return connection.execute(sql).fetchall()


def assert_front_is_that_of_the_results(out: Path, rows: Iterable[Any] | None = None) -> None:
    """What people are shown is the non-dominated set of what is stored.

    Args:
        out: The run's folder.
        rows: What ``RESULTS`` finds in the study's database, where that is none of the folder.
    """
    rows = [tuple(row) for row in (query(out, RESULTS) if rows is None else rows)]
    shown = front(out)
    assert shown["objectives"] == ["accuracy", "eer"]
    expected = front_of_results(rows, OBJECTIVES)
    assert expected
    assert sorted(member["trial"] for member in shown["front"]) == sorted(expected)
    stored = {trial: json.loads(figures) for trial, _, figures in rows}
    for member in shown["front"]:
        assert {key: member[key] for key in OBJECTIVES} == {
            key: stored[member["trial"]][key] for key in OBJECTIVES
        }


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(
                f"ended with {process.returncode}: {process.stdout.read() if process.stdout else ''}"
            )
        if condition():
            return
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    raise AssertionError("timed out")


def results_stored(out: Path) -> int:
    if not (out / "study.db").exists():
        return 0
    try:
        return int(query(out, "SELECT count(*) FROM results")[0][0])
    except sqlite3.OperationalError:
        return 0
