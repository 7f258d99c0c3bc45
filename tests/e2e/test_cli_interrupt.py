"""Ctrl-C pressed twice or early, and SIGTERM."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.e2e.harness import front, results_stored, run, start, wait_for, write_job

pytestmark = pytest.mark.xdist_group("ray")


@pytest.mark.slow
def test_ctrl_c_twice_ends_at_once_and_can_be_resumed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = write_job(tmp_path, search={"trials": 40}, train={"epochs": 12, "early_stop": False})
    process = start("run", job, "--out", out)
    wait_for(lambda: results_stored(out) >= 1, process)
    os.kill(process.pid, signal.SIGINT)
    assert process.stdout is not None
    said = next(line for line in process.stdout if "stopping" in line)  # two signals at once would count as one
    assert "press Ctrl-C again to stop now" in said
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


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_signal_while_ray_starts_says_how_to_go_on(tmp_path: Path, number: int, code: int) -> None:
    out = tmp_path / "out"
    process = start("run", write_job(tmp_path), "--out", out)
    wait_for((out / "artifacts" / "validation_sample.npy").exists, process)
    time.sleep(2)
    os.kill(process.pid, number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == code, output
    assert "Traceback" not in output
    assert output.rstrip().endswith(f"interrupted; go on with: vitsearch resume {out}")


@pytest.mark.slow
def test_sigterm_stops_as_politely_as_ctrl_c(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start("run", write_job(tmp_path, search={"trials": 40}), "--out", out)
    wait_for(lambda: results_stored(out) >= 1, process)
    os.kill(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 143, output
    assert "stopping: running trials are put back" in output
    assert "Pareto front of tiny" in output

    begun = results_stored(out)
    found = run("resume", out, "--trials", str(begun))
    assert found.returncode == 0, found.stderr
    assert "--trials counts all candidates" in found.stderr
    assert f"trials: {begun}" in (out / "job.yaml").read_text(encoding="utf-8")
    again = run("resume", out)
    assert again.returncode == 0, again.stderr
