"""A disk that really fills up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import query, run, write_job

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("e2e-survive"),
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small disk needs Linux and root"
    ),
]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1800k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this root may not mount")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_loses_nothing_and_a_resume_completes(small_disk: Path, tmp_path: Path) -> None:
    out = small_disk / "out"
    fixed = {"architecture.image_size": 8, "architecture.patch_size": 4, "architecture.heads": 2}
    space = {"fixed": fixed, "dimensions": {"architecture.width": {"choices": [96, 112, 128, 144]},
                                            "architecture.depth": {"low": 2, "high": 5}}}  # fmt: skip
    job = write_job(tmp_path, space=space, search={"trials": 8, "max_workers": 1}, train={"epochs": 1})
    found = run("run", job, "--out", out)

    assert found.returncode == 1, found.stdout + found.stderr
    assert "Traceback" not in found.stderr
    assert "No space left" in found.stderr or "disk is full" in found.stderr, found.stderr
    assert f"vitsearch resume {out}" in found.stderr
    before = query(out, "SELECT trial, outcome FROM results ORDER BY trial")
    assert {state for (state,) in query(out, "SELECT state FROM trials")} <= {"told", "asked", "leased", "result"}

    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    found = run("resume", out)

    assert found.returncode == 0, found.stderr
    after = dict(query(out, "SELECT trial, outcome FROM results"))
    assert all(after[trial] == outcome for trial, outcome in before)
    assert len(after) == 8
    assert {state for (state,) in query(out, "SELECT state FROM trials")} == {"told"}
    assert {json.loads(outcome)["kind"] for outcome in after.values()} == {"result"}, "no candidate was blamed"
