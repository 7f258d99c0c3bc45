"""Devices that join a cluster to be measured on."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import harness
from tests.e2e.harness import query, run, write_job
from tests.e2e.heads import Head, ray_head

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("e2e-submit"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head() as found:
        yield found


def targets() -> dict[str, Any]:
    found = run("targets", "--json")
    assert found.returncode == 0, found.stderr
    return {one["name"]: one for one in json.loads(found.stdout)}


def test_a_device_joins_is_listed_is_measured_on_and_leaves(
    head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {**head.environment, "RAY_API_SERVER_ADDRESS": head.address}
    monkeypatch.setattr(harness, "ENVIRONMENT", {**harness.ENVIRONMENT, **environment})
    assert targets().keys() == {"local"}

    device = joined(head)
    try:
        jetson = targets()["jetson"]
        assert jetson["machine"]["processor"]
        assert jetson["machine"]["runtimes"].keys() >= {"pytorch", "onnxruntime"}
        assert {"openvino", "tensorrt"} <= {*jetson["machine"]["missing"], *jetson["machine"]["runtimes"]}
        assert "jetson" in run("targets").stdout

        out = tmp_path / "cluster" / "study"
        measured = {"targets": [{"name": "jetson", "repeats": 5}], "objectives": ["accuracy", "latency"]}
        job = write_job(tmp_path, name="measured", search={"trials": 3}, **measured)
        submitted = run("submit", job, "--out", out)
        assert submitted.returncode == 0, submitted.stderr
        assert run("watch", "measured").returncode == 0
        assert query(out, "SELECT DISTINCT target FROM profiles") == [("jetson",)]
        lacking = write_job(
            tmp_path, name="lacking", targets=[{"name": "jetson", "runtime": "tensorrt", "device": "cuda"}]
        )
        submitted = run("submit", lacking, "--out", tmp_path / "cluster" / "lacking")
        assert submitted.returncode == 1
        assert "lacks tensorrt, which tensorrt needs; there: pip install tensorrt" in submitted.stderr
    finally:
        leave(device)
    deadline = time.monotonic() + 60
    while (gone := targets()["jetson"])["is_there"]:
        assert time.monotonic() < deadline
    assert gone["machine"] is None
    assert 0 < time.time() - gone["seen_at"] < 120
    refused = run("submit", job, "--out", tmp_path / "again")
    assert refused.returncode == 1
    assert "no node of the cluster offers the target 'jetson'; start one with" in refused.stderr


def test_a_device_that_leaves_is_waited_for_while_training_goes_on(
    head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {**head.environment, "RAY_API_SERVER_ADDRESS": head.address}
    monkeypatch.setattr(harness, "ENVIRONMENT", {**harness.ENVIRONMENT, **environment})
    out = tmp_path / "study"
    device = joined(head)
    try:
        job = write_job(
            tmp_path, name="leaving", search={"trials": 8, "sampler": "random"},
            objectives=["accuracy", "latency"],
            targets=[{"name": "jetson", "runtime": "onnxruntime", "repeats": 5}],
        )  # fmt: skip
        submitted = run("submit", job, "--out", out)
        assert submitted.returncode == 0, submitted.stderr
        until(lambda: query(out, "SELECT COUNT(*) FROM profiles")[0][0] >= 1)
        device.kill()  # power is gone
        until(lambda: query(out, "SELECT COUNT(*) FROM results")[0][0] == 8)
        assert query(out, "SELECT COUNT(*) FROM profiles")[0][0] < 8
        until(lambda: "waiting for target jetson: away for" in run("status", "leaving").stdout)
    finally:
        leave(device)
    device = joined(head)
    try:
        assert run("watch", "leaving").returncode == 0
    finally:
        leave(device)
    assert query(out, "SELECT COUNT(*), COUNT(DISTINCT trial) FROM profiles") == [(8, 8)]
    assert query(out, "SELECT state, COUNT(*) FROM trials WHERE kind = 'evaluate' GROUP BY state") == [("told", 8)]
    assert query(out, "SELECT COUNT(*) FROM trials WHERE unmeasured != ''") == [(0,)]


def joined(head: Head) -> subprocess.Popen[str]:
    """A device that is there."""
    device = harness.start("target", "join", "--name", "jetson", "--address", head.gcs)
    deadline = time.monotonic() + 90
    while not targets().get("jetson", {}).get("is_there"):
        assert device.poll() is None, device.communicate()
        assert time.monotonic() < deadline
    return device


def leave(device: subprocess.Popen[str]) -> None:
    device.send_signal(signal.SIGTERM)
    try:
        device.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        device.kill()


def until(condition: Callable[[], bool], timeout_s: float = 240) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_bad_names_and_addresses() -> None:
    found = run("target", "join", "--name", "Jetson!", "--address", "head:6379")
    assert found.returncode == 2
    assert "--name: must be lower-case letters, digits and _" in found.stderr
    found = run("target", "join", "--name", "local", "--address", "head:6379")
    assert found.returncode == 2
    assert "--name: means the driver's own machine" in found.stderr
    found = run("target", "join", "--name", "jetson", "--address", "http://head:8265")
    assert found.returncode == 2
    assert "write HEAD:6379, not the dashboard's" in found.stderr
