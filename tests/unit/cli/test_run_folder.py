"""What a run's folder is made of, who may read it, and what an early end leaves."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from tests.unit.report import factory
from vitsearch.cli import run_folder
from vitsearch.cli.run_folder import JOB_FILE, begun_study, keep_private, new_study, open_study
from vitsearch.config import load_job
from vitsearch.errors import InputError, StudyError
from vitsearch.storage import DATABASE_FILE, database_url, open_engine


def test_of_two_that_find_a_folder_free_one_gets_it_and_the_other_leaves_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "deep" / "run"

    def meanwhile(url: str) -> Any:
        monkeypatch.setattr(run_folder, "open_engine", open_engine)
        new_study(factory.job(name="first"), out)
        return open_engine(url)

    monkeypatch.setattr(run_folder, "open_engine", meanwhile)
    with pytest.raises(InputError, match="holds a study already"):
        new_study(factory.job(name="second", storage={"url": f"sqlite:///{tmp_path}/shared.db"}), out)
    assert open_study(out).study().job.name == "first"


SECRET = {"dataset": {"kind": "npz", "path": "https://me:geheim@h/x.npz"}}


@pytest.fixture(autouse=True)
def everybody_may_read() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def read_by_others(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir() if stat.S_IMODE(file.stat().st_mode) & 0o077}


def test_only_its_owner_reads_a_study_whose_job_holds_a_password(tmp_path: Path):
    store = new_study(factory.job(**SECRET), tmp_path / "out")
    store.acquire()
    assert {JOB_FILE, DATABASE_FILE, f"{DATABASE_FILE}-wal"} <= {
        file.name for file in (tmp_path / "out").iterdir()
    }
    assert read_by_others(tmp_path / "out") == set()


def test_a_password_that_comes_later_closes_the_files(tmp_path: Path):
    store = new_study(factory.job(), tmp_path)
    store.acquire()
    assert {JOB_FILE, DATABASE_FILE} <= read_by_others(tmp_path)
    keep_private(factory.job(), tmp_path)
    assert DATABASE_FILE in read_by_others(tmp_path)
    keep_private(factory.job(**SECRET), tmp_path)
    assert read_by_others(tmp_path) == {JOB_FILE}  # which its author has written


def test_a_store_that_cannot_be_reached_is_one_line(tmp_path: Path):
    elsewhere = factory.job(storage={"artifacts": "ftp://me:geheim@127.0.0.1:9/x"})
    with pytest.raises(
        InputError, match=r"storage\.artifacts: cannot be reached \(Connection refused\)"
    ) as caught:
        new_study(elsewhere, tmp_path / "out")
    assert "geheim" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("database", ["none", "empty", "elsewhere"])
def test_a_study_whose_driver_died_while_it_made_the_folder_begins_when_it_is_resumed(
    database: str, tmp_path: Path
):
    out = tmp_path / "run"
    out.mkdir()
    (out / f".{JOB_FILE}.0a1b.partial").write_text("name: ear")  # of a writer that was killed, too
    url = f"sqlite:///{tmp_path}/shared.db" if database == "elsewhere" else None
    run_folder.write_job(factory.job(name="early", storage={"url": url}), out)
    if database == "empty":
        open_engine(database_url(out)).dispose()
    assert begun_study(out).study().job.name == "early"
    assert open_study(out).study().state == "created"
    assert begun_study(out).study().id == open_study(out).study().id


def test_a_study_with_artifacts_elsewhere_does_not_begin_anew_either(tmp_path: Path):
    """Its database is away, or another one; nothing else lies in the folder during a search."""
    out, url = tmp_path / "run", f"sqlite:///{tmp_path}/shared.db"
    job = factory.job(storage={"url": url, "artifacts": str(tmp_path / "store")})
    new_study(job, out)
    (tmp_path / "store" / job.name / "trials").mkdir(parents=True)
    (tmp_path / "shared.db").rename(tmp_path / "moved.db")
    with pytest.raises(StudyError, match="no single study matches"):
        begun_study(out)


def refuse(*_: object) -> None:
    raise PermissionError(1, "not permitted")


@pytest.mark.parametrize("links", [True, False])
def test_a_job_file_is_never_seen_half(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if not links:  # as on some network and USB disks
        monkeypatch.setattr(os, "link", refuse)
    run_folder.write_job(factory.job(name="first"), tmp_path, new=True)
    with pytest.raises(FileExistsError):
        run_folder.write_job(factory.job(name="second"), tmp_path, new=True)
    assert load_job(tmp_path / JOB_FILE).name == "first"
    run_folder.write_job(factory.job(name="third"), tmp_path)
    assert load_job(tmp_path / JOB_FILE).name == "third"
    assert [file.name for file in tmp_path.iterdir()] == [JOB_FILE]


def test_a_study_whose_database_is_lost_does_not_begin_anew(tmp_path: Path):
    out = tmp_path / "run"
    new_study(factory.job(), out)
    (out / "artifacts").mkdir()
    for file in out.glob(f"{DATABASE_FILE}*"):
        file.unlink()
    with pytest.raises(InputError, match=r"study\.db is missing"):
        begun_study(out)
    assert not (out / DATABASE_FILE).exists()


def test_a_database_that_refuses_a_study_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def read_only(url: str) -> Any:
        engine = open_engine(url)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("PRAGMA query_only=ON"))
        return engine

    monkeypatch.setattr(run_folder, "open_engine", read_only)
    with pytest.raises(StudyError, match=r"refuses a new study .*readonly"):
        new_study(factory.job(), tmp_path / "deep" / "run")
    assert not list(tmp_path.iterdir())


def test_a_study_may_be_called_like_a_number(tmp_path: Path):
    """Its job.yaml was written without quotes, and refused by every command that read it again."""
    job = factory.job(name="12e4", tracking={"experiment": "1e-3"})
    new_study(job, tmp_path / "study")
    stored = open_study(tmp_path / "study").study()
    assert (stored.name, stored.job) == ("12e4", job)
    assert load_job(tmp_path / "study" / JOB_FILE) == job


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        ("postgresql+psycopg://me:geheim@host/db", 0o600),
        ("postgresql+psycopg://host/db?user=me&password=geheim", 0o600),
        ("postgresql+psycopg://me@host:5432/db", 0o644),
    ],
)
def test_a_job_with_a_password_is_its_owners_alone(tmp_path: Path, url: str, mode: int):
    before = os.umask(0o022)
    try:
        run_folder.write_job(factory.job(storage={"url": url}), tmp_path)
    finally:
        os.umask(before)
    assert (tmp_path / "job.yaml").stat().st_mode & 0o777 == mode
