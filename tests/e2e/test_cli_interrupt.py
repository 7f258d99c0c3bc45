"""Ctrl-C pressed twice."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.e2e.harness import front, results_stored, run, start, wait_for, write_job

pytestmark = pytest.mark.xdist_group("e2e-interrupt")


def test_ctrl_c_twice_ends_at_once_and_can_be_resumed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = write_job(tmp_path, search={"trials": 40}, train={"epochs": 12, "early_stop": False})
    process = start("run", job, "--out", out)
    wait_for(lambda: results_stored(out) >= 1, process)
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGINT)
    pressed = time.monotonic()
    output, _ = process.communicate(timeout=120)

    assert process.returncode == 130, output
    assert time.monotonic() - pressed < 15, output
    assert "Traceback" not in output
    assert output.rstrip().endswith(f"interrupted; go on with: vitsearch resume {out}")
    assert "Pareto front" not in output  # nothing is reported: that takes time
    found = run("resume", out, "--trials", str(results_stored(out) + 1))
    assert found.returncode == 0, found.stderr
    assert front(out)["front"]
