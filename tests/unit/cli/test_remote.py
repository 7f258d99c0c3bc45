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


def test_a_database_that_was_not_sent_is_told_of():
    def unknown(_: str) -> Any:
        raise InputError("is neither a submission nor a study of this cluster", remedy="nothing was submitted")

    failed = SimpleNamespace(**{**vars(JOB), "exit_code": 2})
    asked = SimpleNamespace(
        **{**vars(cluster(b"")), "job": unknown, "read": lambda *_: None, "info": lambda _: failed}
    )
    named = StudyName(name="a", address="http://h:1", database=None, withheld=True)
    with pytest.raises(InputError, match=r"is not sent there, but read from here with --database '\$\{VITSEARCH_"):
        remote.job_or_stored(asked, named)
