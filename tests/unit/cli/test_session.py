"""The run's folder of a new study."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.report.factory import job
from vitsearch.cli.session import JOB_FILE, keep_private, new_study
from vitsearch.storage import DATABASE_FILE

SECRET = {"dataset": {"kind": "npz", "path": "https://me:geheim@h/x.npz"}}


@pytest.fixture(autouse=True)
def everybody_may_read() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def read_by_others(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir() if stat.S_IMODE(file.stat().st_mode) & 0o077}


def test_only_its_owner_reads_a_study_whose_job_holds_a_password(tmp_path: Path):
    store = new_study(job(**SECRET), tmp_path / "out")
    store.acquire()
    assert {JOB_FILE, DATABASE_FILE, f"{DATABASE_FILE}-wal"} <= {
        file.name for file in (tmp_path / "out").iterdir()
    }
    assert read_by_others(tmp_path / "out") == set()


def test_a_password_that_comes_later_closes_the_files(tmp_path: Path):
    store = new_study(job(), tmp_path)
    store.acquire()
    assert {JOB_FILE, DATABASE_FILE} <= read_by_others(tmp_path)
    keep_private(job(), tmp_path)
    assert DATABASE_FILE in read_by_others(tmp_path)
    keep_private(job(**SECRET), tmp_path)
    assert read_by_others(tmp_path) == {JOB_FILE}  # which its author has written


def test_a_store_that_cannot_be_reached_is_one_line(tmp_path: Path):
    from vitsearch.errors import InputError

    elsewhere = job(storage={"artifacts": "ftp://me:geheim@127.0.0.1:9/x"})
    with pytest.raises(
        InputError, match=r"storage\.artifacts: cannot be reached \(Connection refused\)"
    ) as caught:
        new_study(elsewhere, tmp_path / "out")
    assert "geheim" not in str(caught.value)
    assert not (tmp_path / "out").exists()
