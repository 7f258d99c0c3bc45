"""One measurement at a time on a machine, whoever asks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from workers.profiler import machine_to_itself

HOLDER = """
import tempfile, time
from workers.profiler import machine_to_itself
tempfile.tempdir = {folder!r}
with machine_to_itself():
    print("held", flush=True)
    time.sleep({seconds})
"""


@pytest.fixture(autouse=True)
def lock_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def holder(folder: Path, seconds: float) -> subprocess.Popen[str]:
    code = HOLDER.format(folder=str(folder), seconds=seconds)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_measurement_waits_for_the_first(tmp_path: Path) -> None:
    with holder(tmp_path, 1.0) as process:
        with machine_to_itself():
            waited_for = process.wait(5)
        assert waited_for == 0


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    with holder(tmp_path, 600) as process:
        os.kill(process.pid, signal.SIGKILL)
        started = time.monotonic()
        with machine_to_itself():
            assert time.monotonic() - started < 30


def test_another_users_lock_file_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "vitsearch-measuring.lock").touch(mode=0o444)
    with machine_to_itself():
        assert not os.access(tmp_path / "vitsearch-measuring.lock", os.X_OK)
