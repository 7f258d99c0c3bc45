"""A submitted study in a database and a store alone: folder, driver and head are dispensable."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from sklearn.datasets import load_digits

from tests.e2e import harness
from tests.e2e.harness import run, write_job
from tests.e2e.heads import Head, ray_head
from tests.postgres import postgres_server, url_of
from vitsearch.storage import StudyStore, open_engine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("e2e-submit")]


@pytest.fixture
def database() -> Iterator[str]:
    with postgres_server() as server:
        yield url_of(server)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A client's folder with images, beside which nothing of the cluster lies."""
    folder = tmp_path / "client"
    (folder / "data").mkdir(parents=True)
    digits = load_digits()
    images = (digits.images[:400] * 15).astype(np.uint8)
    np.savez(folder / "data" / "digits.npz", x_train=images, y_train=digits.target[:400])
    monkeypatch.chdir(folder)
    return folder


def use(head: Head, monkeypatch: pytest.MonkeyPatch, **more: str) -> None:
    environment = {**head.environment, "RAY_API_SERVER_ADDRESS": head.address, **more}
    monkeypatch.setattr(harness, "ENVIRONMENT", {**harness.ENVIRONMENT, **environment})


def told(*arguments: str | Path) -> str:
    found = run(*arguments)
    assert found.returncode == 0, found.stderr
    return found.stdout


def outcomes(database: str) -> dict[int, Any]:
    engine = open_engine(database)
    try:
        return {trial.number: trial.outcome for trial in StudyStore.find(engine, "lasting").trials()}
    finally:
        engine.dispose()


def drivers() -> list[psutil.Process]:
    words = {"vitsearch.cli.on_cluster", "run"}
    return [p for p in psutil.process_iter(["cmdline"]) if words <= set(p.info["cmdline"] or [])]


def test_a_study_without_a_folder_outlives_its_driver_and_its_head(
    database: str, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, scratch = tmp_path / "store", tmp_path / "scratch"
    scratch.mkdir()
    variables = {"TMPDIR": str(scratch), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
                 "VITSEARCH_CACHE": str(tmp_path / "cache")}  # fmt: skip
    job = write_job(
        here, name="lasting", dataset={"kind": "npz", "path": "data/digits.npz", "max_images": 200},
        search={"trials": 8}, train={"epochs": 6, "early_stop": False}, tracking={"enabled": True},
        storage={"url": database, "artifacts": f"local://{store}"}, final={"retrain": "knee", "epochs": 2},
    )  # fmt: skip
    with ray_head(**variables) as head:
        use(head, monkeypatch)
        submitted = told("submit", job)
        assert "kept in" not in submitted
        (here / "data" / "digits.npz").unlink()  # it has travelled
        (left,) = scratch.glob("vitsearch-scratch-lasting-*")
        while sum(outcome is not None for outcome in outcomes(database).values()) < 2:
            time.sleep(0.2)
        (driver,) = drivers()
        driver.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 60
        while json.loads(told("status", "lasting", "--json"))["status"] != "FAILED":
            assert time.monotonic() < deadline
        shutil.rmtree(left)
        before = {number: outcome for number, outcome in outcomes(database).items() if outcome is not None}
        assert "study lasting in its database" in told("status", "lasting")
        told("resume", "--study", "lasting")
        assert "8/8 trials" in told("watch", "lasting")
        after = outcomes(database)
        assert before.items() <= after.items()
        assert sum(outcome is not None for outcome in after.values()) == 8
        assert not list(scratch.glob("vitsearch-scratch-*"))
        front = json.loads(told("pareto", "--study", "lasting", "--json"))
    assert (tmp_path / "mlflow.db").is_file()
    assert (store / "lasting" / "files" / "0-digits.npz").is_file()

    with ray_head(**variables) as head:  # another one, which has never heard of the study
        use(head, monkeypatch)
        unknown = run("pareto", "--study", "lasting")
        assert unknown.returncode == 2
        assert "a cluster that was restarted forgets names" in unknown.stderr
        use(head, monkeypatch, VITSEARCH_DATABASE_URL=database)
        assert "lasting: finished; no submission of this cluster drives it" in told("status", "lasting")
        assert "8/8 trials" in told("watch", "lasting")
        status = json.loads(told("status", "lasting", "--json"))
        assert (status["id"], status["state"]["ended"], status["state"]["progress"]["ended"]) == (
            None,
            "finished",
            8,
        )
        assert json.loads(told("pareto", "--study", "lasting", "--json")) == front
        shown = told("show", "--study", "lasting")
        assert f"vitsearch export --study lasting --address {head.address} --select trial={front['knee']}" in shown
        told("resume", "--study", "lasting", "--trials", "9")
        assert "9/9 trials" in told("watch", "lasting")
        told("export", "--study", "lasting", "--select", "best-accuracy", "--out", here / "bundle")

    # and without any cluster
    named = ["--study", "lasting", "--database", database]
    assert "of study lasting: done" in told("show", *named)
    told("export", *named, "--out", here / "other")
    assert json.loads((here / "other" / "metrics.json").read_text())["accuracy_test"] is not None
    assert "10/10 trials" in run("resume", *named, "--trials", "10", "--workers", "2").stderr
    told("pareto", *named, "--csv", here / "table.csv")
    assert len((here / "table.csv").read_text().splitlines()) > 10


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A short one: Ray's sockets allow 107 characters."""
    with tempfile.TemporaryDirectory(prefix="vs-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def test_a_search_on_one_machine_needs_no_folder_either(
    scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = f"sqlite:///{tmp_path}/studies.db"
    monkeypatch.setattr(harness, "ENVIRONMENT", {**harness.ENVIRONMENT, "TMPDIR": str(scratch)})
    job = write_job(
        tmp_path, search={"trials": 2}, storage={"url": database, "artifacts": str(tmp_path / "store")}
    )
    refused = run("run", write_job(scratch))
    assert refused.returncode == 2
    assert "storage.artifacts: keeps weights and checkpoints in the run's folder" in refused.stderr
    (scratch / "job.yaml").unlink()
    found = told("run", job)
    named = ["--study", "tiny", "--database", database]
    assert f"vitsearch export {' '.join(named)} --select knee --out bundle" in found
    assert f"vitsearch resume {' '.join(named)} --trials N" in found
    assert not list(scratch.glob("vitsearch-scratch-*"))
    assert "3/3 trials" in run("resume", *named, "--trials", "3").stderr
    told("export", *named, "--out", tmp_path / "bundle")
    again = run("run", job)
    assert again.returncode == 2
    assert "holds the artifacts of a study already" in again.stderr
