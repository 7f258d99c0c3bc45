"""Searches handed to a cluster from a folder that shares nothing with it."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from sklearn.datasets import load_digits

from tests.command_line import vitsearch
from tests.e2e import harness
from tests.e2e.harness import assert_front_is_that_of_the_results, query, run, write_job
from tests.e2e.heads import Head, ray_head
from tests.integration.test_mlflow import Server, runs_of
from vitsearch.cli.ports import any_port

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head() as found:
        yield found


@pytest.fixture(autouse=True)
def client(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {**head.environment, "RAY_API_SERVER_ADDRESS": head.address}
    monkeypatch.setattr(harness, "ENVIRONMENT", {**harness.ENVIRONMENT, **environment})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A client's folder, beside which nothing of the cluster lies."""
    folder = tmp_path / "client"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def write_images(file: Path) -> None:
    digits = load_digits()
    images = (digits.images[:400] * 15).astype(np.uint8)
    np.savez(file, x_train=images, y_train=digits.target[:400])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow 3.17 about its own dependencies
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_submit_watch_browse_and_export_from_elsewhere(head: Head, here: Path, tmp_path: Path) -> None:
    out = tmp_path / "cluster" / "study"
    (here / "data").mkdir()
    write_images(here / "data" / "digits.npz")
    (tmp_path / "mlflow").mkdir()
    server = Server(tmp_path / "mlflow")
    server.start()
    try:
        tracking = server.url
        job = write_job(
            here,
            dataset={"kind": "npz", "path": "data/digits.npz", "max_images": 200},
            tracking={"enabled": True, "uri": tracking},
        )
        submitted = run("submit", job, "--out", out)
        assert submitted.returncode == 0, submitted.stderr
        assert f"MLflow    {tracking}/#/experiments/1/runs?" in submitted.stdout
        (here / "data" / "digits.npz").unlink()  # it has travelled
        watched = run("watch", "tiny")
        assert watched.returncode == 0, watched.stderr
        assert "succeeded" in watched.stdout
        assert "6/6 trials" in watched.stdout
        assert "ended: trial budget used" in watched.stdout
        front = run("pareto", "--study", "tiny", "--json")
        assert front.returncode == 0, front.stderr
        parent, children = runs_of(tracking, "vitsearch/tiny")
    finally:
        server.stop()
    assert query(out, "SELECT count(*) FROM results") == [(6,)]
    assert (out / "files" / "0-digits.npz").is_file()

    listed = json.loads(run("list", "--json").stdout)[0]
    assert listed["study"] == "tiny"
    assert listed["status"] == "SUCCEEDED"
    assert listed["out"] == str(out)
    assert listed["state"]["progress"]["ended"] == 6
    assert json.loads(front.stdout) == harness.front(out)
    assert parent.info.status == "FINISHED"
    current = {number for number, child in children.items() if child.data.tags["pareto"] == "current"}
    assert current == {member["trial"] for member in json.loads(front.stdout)["front"]}

    bundle = here / "bundle"
    exported = run("export", "--study", "tiny", "--select", "best-accuracy", "--out", bundle)
    assert exported.returncode == 0, exported.stderr
    assert {"model.onnx", "model.safetensors", "metrics.json"} <= {file.name for file in bundle.iterdir()}
    best = max(member["accuracy"] for member in json.loads(front.stdout)["front"])
    assert json.loads((bundle / "metrics.json").read_text())["accuracy_val"] == best
    assert not list(head.folder.glob("session_*/logs/vitsearch-copy-*.tar"))


@pytest.mark.slow
def test_stop_and_resume(here: Path, tmp_path: Path) -> None:
    out = tmp_path / "cluster" / "study"
    job = write_job(here, name="stopped", search={"trials": 60})
    assert run("submit", job, "--out", out).returncode == 0
    second = run("submit", job, "--out", out)
    assert second.returncode == 1
    assert "is being driven already by submission stopped-" in second.stderr
    stopped = run("stop", "stopped")
    assert stopped.returncode == 0, stopped.stderr
    assert "ended: stopped" in stopped.stdout
    assert query(out, "SELECT count(*) FROM trials WHERE state = 'leased'") == [(0,)]
    done = query(out, "SELECT count(*) FROM results")[0][0]
    assert 0 <= done < 60

    resumed = run("resume", "--study", "stopped", "--trials", str(done + 2))
    assert resumed.returncode == 0, resumed.stderr
    followed = run("logs", "-f", "stopped")
    assert f"{done + 2}/{done + 2} trials" in followed.stdout
    assert query(out, "SELECT count(*) FROM results") == [(done + 2,)]
    assert query(out, "SELECT count(DISTINCT trial) FROM results") == [(done + 2,)]


@pytest.mark.slow
def test_a_killed_driver_is_a_failed_submission_that_resumes(here: Path, tmp_path: Path) -> None:
    out = tmp_path / "cluster" / "study"
    job = write_job(here, name="killed", search={"trials": 8})
    assert run("submit", job, "--out", out).returncode == 0
    mine = [p for p in psutil.process_iter(["cmdline"]) if str(out) in (p.info["cmdline"] or [])]
    assert mine
    for process in mine:
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while json.loads(run("status", "killed", "--json").stdout)["status"] != "FAILED":
        assert time.monotonic() < deadline
    before = dict(query(out, "SELECT trial, outcome FROM results"))
    assert run("resume", "--study", "killed").returncode == 0
    assert run("watch", "killed").returncode == 0
    assert query(out, "SELECT count(*) FROM trials WHERE kind = 'evaluate' AND state = 'told'") == [(8,)]
    after = dict(query(out, "SELECT trial, outcome FROM results"))
    assert len(after) == 8
    assert before.items() <= after.items()
    assert_front_is_that_of_the_results(out)
    refused = run("export", "--study", "killed", "--select", "trial=99", "--out", here / "bundle")
    assert refused.returncode == 2
    assert "names no member of the front" in refused.stderr


def test_what_is_wrong_with_a_job_is_told_where_it_was_submitted(here: Path, tmp_path: Path) -> None:
    out = tmp_path / "cluster" / "study"
    job = write_job(here, name="wrong", dataset={"kind": "npz", "path": "/nowhere/digits.npz"})
    found = run("submit", job, "--out", out)
    assert found.returncode == 2
    assert "/nowhere/digits.npz" in found.stderr
    assert not out.exists()
    assert run("status", "wrong").stdout.startswith("wrong-")
    absent = write_job(here, name="wrong", dataset={"kind": "npz", "path": "data/digits.npz"})
    found = run("submit", absent, "--out", out)
    assert found.returncode == 2
    assert "names a file that does not exist here" in found.stderr
    found = run("submit", job)
    assert found.returncode == 2
    assert "storage.artifacts: keeps weights and checkpoints in the run's folder" in found.stderr
    homeless = write_job(here, name="wrong", storage={"artifacts": str(tmp_path / "artifacts")})
    found = run("submit", homeless)
    assert found.returncode == 2
    assert "storage.url: keeps the study's records in the run's folder, and without --out there is" in found.stderr
    assert not (tmp_path / "artifacts").exists()
    found = run("submit", job, "--out", "relative")
    assert found.returncode == 2
    assert "must be an absolute folder on the cluster" in found.stderr


@pytest.mark.parametrize(
    ("variables", "options", "message"),
    [
        ({"RAY_AUTH_TOKEN": "wrong"}, [], "refuses this token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"),
        ({"RAY_AUTH_MODE": "disabled"}, [], "wants a token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"),
        ({}, ["--address", "http://127.0.0.1:{free}"], "no Ray cluster answers at http://127.0.0.1:{free}"),
        ({}, ["--address", "{gcs}"], "give the address of its dashboard, http://HEAD:8265"),
        ({}, ["--address", "http://127.0.0.1:x"], "must be the address of a Ray dashboard"),
    ],
)
def test_a_cluster_that_cannot_be_used_is_one_line(
    head: Head, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], options: list[str], message: str
) -> None:
    monkeypatch.setattr(harness, "ENVIRONMENT", {**harness.ENVIRONMENT, **variables})
    places = {"free": any_port(), "gcs": head.gcs}
    found = run("list", *(option.format(**places) for option in options))
    assert found.returncode in {1, 2}
    assert message.format(**places) in found.stderr
    assert len(found.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "command",
    [
        ["stop", "nobody"],
        *(
            pytest.param([*one], marks=pytest.mark.slow)
            for one in (["status", "nobody"], ["pareto", "--study", "nobody"])
        ),
    ],
    ids=" ".join,
)
def test_an_unknown_study_names_the_known_ones(command: list[str]) -> None:
    found = run(*command)
    assert found.returncode == 2
    assert "is neither a submission nor a study of this cluster, but got 'nobody'" in found.stderr


def test_neither_and_both_ways_of_naming_a_run_are_refused(tmp_path: Path) -> None:
    for arguments in ([], [str(tmp_path), "--study", "x"]):
        found = vitsearch("pareto", *arguments)
        assert found.returncode == 2
        assert "give one of them" in found.stderr
