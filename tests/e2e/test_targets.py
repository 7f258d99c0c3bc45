"""Devices that join a cluster to be measured on."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
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

    device = harness.start("target", "join", "--name", "jetson", "--address", head.gcs)
    try:
        deadline = time.monotonic() + 90
        while "jetson" not in (found := targets()):
            assert device.poll() is None, device.communicate()
            assert time.monotonic() < deadline
        jetson = found["jetson"]
        assert jetson["is_there"]
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
    finally:
        device.send_signal(signal.SIGTERM)
        try:
            device.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            device.kill()
    deadline = time.monotonic() + 60
    while (gone := targets()["jetson"])["is_there"]:
        assert time.monotonic() < deadline
    assert gone["machine"] is None
    assert 0 < time.time() - gone["seen_at"] < 120
    refused = run("submit", job, "--out", tmp_path / "again")
    assert refused.returncode == 1
    assert "no node of the cluster offers the target 'jetson'; start one with" in refused.stderr


def test_bad_names_and_addresses() -> None:
    found = run("target", "join", "--name", "Jetson!", "--address", "head:6379")
    assert found.returncode == 2
    assert "--name: must be lower-case letters, digits and _" in found.stderr
    found = run("target", "join", "--name", "jetson", "--address", "http://head:8265")
    assert found.returncode == 2
    assert "write HEAD:6379, not the dashboard's" in found.stderr
