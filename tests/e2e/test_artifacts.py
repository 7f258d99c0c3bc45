"""A search whose weights lie in a store that only fsspec reaches."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.e2e.harness import front, query, results_stored, run, start, wait_for, write_job

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("e2e-survive")]


def test_weights_and_checkpoints_lie_in_the_store_and_survive_the_driver(tmp_path: Path) -> None:
    out, store = tmp_path / "out", tmp_path / "store"
    job = write_job(
        tmp_path, search={"trials": 6}, train={"epochs": 8, "early_stop": False},
        final={"retrain": "knee", "epochs": 3}, storage={"artifacts": f"local://{store}"},
    )  # fmt: skip
    process = start("run", job, "--out", out)
    wait_for(lambda: results_stored(out) >= 2 and bool(list(store.glob("tiny/trials/*/epoch.pt"))), process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)

    found = run("resume", out)
    assert found.returncode == 0, found.stderr
    assert not (out / "artifacts").exists()
    outcomes = [json.loads(text) for (text,) in query(out, "SELECT outcome FROM results")]
    assert [outcome["kind"] for outcome in outcomes] == ["result"] * 6
    members = {f"{member['trial']:05d}" for member in front(out)["front"]}
    assert {file.parent.name for file in store.glob("tiny/trials/*/model.safetensors")} == members
    assert not list(store.glob("tiny/*/*/epoch.pt"))

    exported = run("export", out, "--out", tmp_path / "bundle")
    assert exported.returncode == 0, exported.stderr
    assert json.loads((tmp_path / "bundle" / "metrics.json").read_text())["accuracy_test"] is not None

    again = run("run", job, "--out", tmp_path / "other")
    assert again.returncode == 2
    assert "storage.artifacts: holds the artifacts of a study already" in again.stderr
    assert not (tmp_path / "other").exists()
