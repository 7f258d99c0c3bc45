"""Real Ray heads on loopback, with a dashboard and token authentication."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from vitsearch.cli.ports import any_port

TOKEN = "0123456789abcdef" * 4
RAY = Path(sys.executable).with_name("ray")


@dataclass(frozen=True, kw_only=True)
class Head:
    """A running head.

    Attributes:
        address: Of its dashboard.
        gcs: What ``ray start --address`` takes.
        environment: Variables that let a client in.
        folder: Where Ray keeps its logs.
    """

    address: str
    gcs: str
    environment: dict[str, str]
    folder: Path


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process that leads a group to end; with ``--block`` a Ray node takes its own processes along."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(4)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


@contextmanager
def ray_head(num_cpus: int = 2, **variables: str) -> Iterator[Head]:
    """A head in a process group of its own, which is killed afterwards."""
    gcs, dashboard = f"127.0.0.1:{any_port()}", any_port()
    folder = Path(tempfile.mkdtemp(prefix="vs-ray-", dir="/tmp"))  # Ray's sockets allow 107 characters
    secrets = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    environment = {**os.environ, **secrets, **variables, "PATH": f"{RAY.parent}:{os.environ['PATH']}"}
    command = [
        str(RAY), "start", "--head", "--block", "--node-ip-address", "127.0.0.1", "--port", gcs.split(":")[1],
        "--dashboard-port", str(dashboard), "--dashboard-agent-listen-port", str(any_port()),
        "--num-cpus", str(num_cpus), "--temp-dir", str(folder),
        "--object-store-memory", str(200 * 2**20), "--disable-usage-stats",
    ]  # fmt: skip
    with (folder / "head.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_for(f"http://127.0.0.1:{dashboard}", process, folder / "head.log")
        yield Head(address=f"http://127.0.0.1:{dashboard}", gcs=gcs, environment=secrets, folder=folder)
    finally:
        end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if requests.get(f"{address}/api/version", timeout=2).status_code in {200, 401}:
                return
        except requests.exceptions.RequestException:
            time.sleep(0.2)
    raise AssertionError(log.read_text())
