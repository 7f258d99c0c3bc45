"""What people are told of a submission that does not do what it is to do."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.report import factory
from vitsearch.cli import cluster, remote
from vitsearch.cli.finding import StudyName
from vitsearch.cli.run_folder import job_yaml
from vitsearch.errors import StudyError
from vitsearch.messages import LiveState, Progress
from workers import Submitted

NAMED = StudyName(name="a", address="http://h:1", database=None)


def submitted(status: str) -> Submitted:
    return Submitted(
        id="a-1",
        study="a",
        out="/studies/a",
        status=status,
        message="",
        submitted_at=0.0,
        ended_at=None,
        node_id=None,
    )


@pytest.fixture
def status(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The status of the one submission that a cluster has, for as long as it is asked."""
    told = {"status": "RUNNING"}
    there: Any = SimpleNamespace(
        address="http://h:1", job=lambda _: submitted(told["status"]), info=lambda _: submitted(told["status"]),
        stop=lambda _: None, read=lambda *_: None, log=lambda _: "",
    )  # fmt: skip
    monkeypatch.setattr(remote, "connect", lambda _: there)
    monkeypatch.setattr(remote, "go_on", lambda *_, **__: submitted("PENDING"))
    for module, name, value in (
        (cluster, "POLL_S", 0.0), (cluster, "STOP_PATIENCE_S", 0.01),
        (remote, "POLL_S", 0.0), (remote, "START_TIMEOUT_S", 0.01),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    return told


@pytest.mark.usefixtures("status")
def test_a_search_that_does_not_stop_is_no_success():
    with pytest.raises(StudyError, match=r"a-1 has not ended in 0\.01 s and is running"):
        cluster.stop("a-1", "http://h:1")


def test_a_search_that_stops_is_one(status: dict[str, str], capsys: pytest.CaptureFixture[str]):
    status["status"] = "STOPPED"
    cluster.stop("a-1", "http://h:1")
    assert "a-1 has ended already (stopped)" in capsys.readouterr().out


def test_what_has_not_begun_is_told(status: dict[str, str], capsys: pytest.CaptureFixture[str]):
    status["status"] = "PENDING"
    cluster.resume_submitted(NAMED, trials=None, workers=None, json_output=False)
    assert "note: a-1 has not begun yet (pending)\n" in capsys.readouterr().err


@pytest.mark.usefixtures("status")
@pytest.mark.parametrize("begun", [False, True])
def test_a_resumed_submission_is_told_as_json(
    begun: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    progress = Progress.model_construct()
    state = LiveState.model_construct(study="a", progress=progress, browse_url="http://mlflow/1")
    monkeypatch.setattr(remote, "state_of", lambda *_: state if begun else None)
    cluster.resume_submitted(NAMED, trials=None, workers=None, json_output=True)
    assert json.loads(capsys.readouterr().out) == {
        "id": "a-1", "study": "a", "out": "/studies/a", "address": "http://h:1",
        "mlflow": "http://mlflow/1" if begun else "", "begun": begun,
    }  # fmt: skip


def test_a_search_that_has_nothing_to_tell_any_more_shows_nothing_in_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(cluster, "LINE_EVERY_S", -1.0)
    with cluster._screen() as show:
        for lines in (["3/8 trials"], [], ["4/8 trials"]):
            show("", lines)
    assert capsys.readouterr().out == "3/8 trials\n4/8 trials\n"


@pytest.mark.usefixtures("status")
@pytest.mark.parametrize("enabled", [False, True])
def test_only_a_search_that_is_recorded_has_a_page(
    enabled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(remote, "begin", lambda *_, **__: submitted("PENDING"))
    job = tmp_path / "job.yaml"
    job.write_text(job_yaml(factory.job(tracking={"enabled": enabled, "uri": "http://mlflow:5000"})))
    cluster.submit(job, "/studies/a", "http://h:1", wait=False)
    assert ("MLflow" in capsys.readouterr().out) == enabled


def test_hints_can_be_pasted_into_a_shell():
    there: Any = SimpleNamespace(address="http://h:1/a&b")
    said = cluster._hints(there, dataclasses.replace(submitted("PENDING"), id="a b-1", study="a b"))
    assert "vitsearch watch 'a b-1' --address 'http://h:1/a&b'" in said
    assert "--study 'a b'" in said
