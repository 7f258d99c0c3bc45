"""Answers of a cluster that are none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vitsearch.cli import remote
from vitsearch.cli.finding import StudyName
from vitsearch.errors import InputError, StudyError

JOB = SimpleNamespace(id="a", has_ended=True, message="", exit_code=1, out="/a", study="a")


def cluster(content: bytes) -> Any:
    return SimpleNamespace(
        address="http://h:1", info=lambda _: JOB, job=lambda _: JOB, read=lambda *_: content,
        forget=lambda _: None,
        submit=lambda **_: None, log=lambda _: "", stop=lambda _: None,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def small_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "write_package", lambda *_, **__: None)


@pytest.mark.parametrize("content", [b"{", b"[]", b"null", b"[" * 100_000])
def test_what_is_no_answer_is_one_line(content: bytes):
    with pytest.raises(StudyError, match="answers cannot be read"):
        remote.targets_of(cluster(content))


@pytest.mark.parametrize("content", [b"{}", b'{"targets": 3}', b'{"targets": [{"name": 3}]}'])
def test_targets_of_another_vitsearch_are_one_line(content: bytes):
    with pytest.raises(StudyError, match="is that of another vitsearch"):
        remote.targets_of(cluster(content))


@pytest.mark.parametrize("content", [b"{}", b'{"file": "x", "sha256": "y", "bytes": "many"}'])
def test_a_copy_without_its_facts_is_one_line(content: bytes, tmp_path: Path):
    named = StudyName(name="a", address="http://h:1", database=None)
    with pytest.raises(StudyError, match="is that of another vitsearch"):
        remote.copy_study_here(cluster(content), named, "none", tmp_path, lambda _: None)


NAMED = StudyName(name="a", address="http://h:1", database=None)
ELSEWHERE = StudyName(name="a", address="http://h:1", database=None, withheld=True)


def forgetful(content: bytes | None, **job: Any) -> Any:
    """A cluster that was restarted: it knows no submission, and its helper answers this."""

    def unknown(_: str) -> Any:
        raise InputError("is neither a submission nor a study of this cluster", remedy="nothing was submitted")

    helper = SimpleNamespace(**{**vars(JOB), **job})
    log = f"\nerror: {job['words']}" if "words" in job else ""
    changed = {
        "job": unknown, "jobs": list, "read": lambda *_: content, "info": lambda _: helper, "log": lambda _: log
    }  # fmt: skip
    return SimpleNamespace(**{**vars(cluster(b"")), **changed})


def test_a_database_that_was_not_sent_is_told_of():
    with pytest.raises(InputError, match=r"is not sent there, but read from here with --database '\$\{VITSEARCH_"):
        remote.job_or_stored(forgetful(b'{"unknown": "no database"}'), ELSEWHERE)


def test_what_the_head_says_of_an_unknown_study_is_told():
    asked = forgetful(b'{"unknown": "the variable DB_PASSWORD is not set"}')
    with pytest.raises(InputError, match=r"is neither .*; its head says: the variable DB_PASSWORD is not set"):
        remote.job_or_stored(asked, NAMED)


@pytest.mark.parametrize("words", ["the cluster's Python lacks optuna", "a study in PostgreSQL needs an extra"])
def test_a_head_that_cannot_look_is_not_taken_for_one_that_knows_no_study(words: str):
    with pytest.raises(InputError) as caught:
        remote.job_or_stored(forgetful(None, exit_code=2, words=words), NAMED)
    assert str(caught.value) == words


def test_a_study_whose_cluster_was_restarted_is_resumed_under_its_own_name(monkeypatch: pytest.MonkeyPatch):
    submitted = []
    monkeypatch.setattr(remote, "_submit", lambda _, study, out, *__: submitted.append((study, out)))
    asked = forgetful(b'{"study": "digits", "state": "interrupted"}')
    named = StudyName(name="/studies/monday", address="http://h:1", database=None)
    remote.go_on(asked, remote.place_of(asked, named), trials=None, workers=None)
    assert submitted == [("digits", "/studies/monday")]


@pytest.mark.parametrize(("ended_with", "exit_code"), [(-9, 1), (None, 1), (130, 130), (2, 2)])
def test_a_search_that_was_killed_ends_its_watcher_with_1(ended_with: int | None, exit_code: int):
    killed: Any = SimpleNamespace(id="a", status="FAILED", message="killed", exit_code=ended_with)
    with pytest.raises(remote.RemoteError) as caught:
        remote.raise_if_failed(cluster(b""), killed)
    assert caught.value.exit_code == exit_code
