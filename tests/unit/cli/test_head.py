"""What submitted jobs do on the cluster, and take from its environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import vitsearch.cli.job_checks
import vitsearch.cli.run
import vitsearch.cli.session
from tests.unit.report.factory import job
from vitsearch.cli import head
from vitsearch.cli.head import DATABASE_VARIABLE, TRACKING_VARIABLE, with_site_defaults
from vitsearch.cli.packing import check_files
from vitsearch.cli.run import Further
from vitsearch.cli.run_folder import write_job
from vitsearch.config import JobSpec
from vitsearch.errors import InputError
from vitsearch.storage import StudyStore

PLAIN = "postgresql+psycopg://me@host/db"


def test_a_job_that_names_nothing_takes_the_site_s_addresses(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(TRACKING_VARIABLE, "http://mlflow:5000")
    monkeypatch.setenv(DATABASE_VARIABLE, PLAIN)
    found = with_site_defaults(job())
    assert (found.tracking.uri, found.storage.url) == ("http://mlflow:5000", PLAIN)
    own = job(tracking={"uri": "http://mine:1"}, storage={"url": "sqlite:////a.db"})
    assert with_site_defaults(own) == own


def test_without_any_the_job_stays_as_it_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(TRACKING_VARIABLE, raising=False)
    monkeypatch.setenv(DATABASE_VARIABLE, "")
    assert with_site_defaults(job()) == job()


def test_an_address_with_a_password_stays_in_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(TRACKING_VARIABLE, "https://me:geheim@mlflow")
    monkeypatch.setenv(DATABASE_VARIABLE, "postgresql+psycopg://me:geheim@host/db")
    found = with_site_defaults(job())
    assert (found.tracking.uri, found.storage.url) == ("${MLFLOW_TRACKING_URI}", "${VITSEARCH_DATABASE_URL}")


TEACHER = {"timm": "resnet18", "checkpoint": "files/0-teacher.safetensors"}


@pytest.fixture
def driven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[JobSpec]:
    """The jobs of studies that were begun, and only that, from a package in the working folder."""
    jobs: list[JobSpec] = []
    (tmp_path / "package" / "files").mkdir(parents=True)
    (tmp_path / "package" / "files" / "0-teacher.safetensors").write_bytes(b"teacher")
    monkeypatch.chdir(tmp_path / "package")

    def drive(store: StudyStore, *_: Any, **__: Any) -> None:
        jobs.append(store.study().job)

    monkeypatch.setattr(vitsearch.cli.run, "drive", drive)
    monkeypatch.setattr(vitsearch.cli.run, "_check_machine", lambda *_: None)
    monkeypatch.setattr(vitsearch.cli.session, "load_data", lambda _: None)
    for name in ("check_written", "checked_data"):
        monkeypatch.setattr(vitsearch.cli.job_checks, name, lambda *_: None)
    return jobs


def begin(out: Path, **settings: Any) -> None:
    write_job(job(train={"distill": {"method": "soft", "teacher": TEACHER}}, **settings), Path())
    head.run(out)


def teacher_of(spec: JobSpec) -> str:
    teacher = spec.train.distill.teacher
    assert teacher is not None
    return str(teacher.checkpoint)


@pytest.mark.parametrize("artifacts", ["folder", "memory://headed", None])
def test_files_that_travelled_stay_where_all_nodes_see_the_weights(
    artifacts: str | None, tmp_path: Path, driven: list[JobSpec]
):
    """With --out they stayed there, and trainers on other nodes looked for them in vain."""
    out = tmp_path / "out"
    store = str(tmp_path / "store") if artifacts == "folder" else artifacts
    begin(out, storage={"artifacts": store})
    root = str(out) if store is None else f"{store}/digits"
    assert teacher_of(driven[0]) == f"{root}/files/0-teacher.safetensors"
    check_files(driven[0], root)
    assert (out / "files").exists() == (store is None)
    head.resume(out, "", None, None)
    assert driven[1] == driven[0]


@pytest.mark.parametrize("begun_before", [False, True])
def test_a_study_is_resumed_only_with_all_files_wherever_it_keeps_them(
    begun_before: bool, tmp_path: Path, driven: list[JobSpec]
):
    out, store = tmp_path / "out", tmp_path / "store"
    begin(out, storage={} if begun_before else {"artifacts": str(store)})
    if begun_before:  # with a store, and with its files in the run's folder all the same
        written = driven[0].model_copy(
            update={"storage": driven[0].storage.model_copy(update={"artifacts": str(store)})}
        )
        study = vitsearch.cli.run_folder.open_study(out)
        study.acquire()
        study.set_job(written)
        study.release("interrupted")
        write_job(written, out)
    vitsearch.cli.run.drive_on(out, Further())
    Path(teacher_of(driven[0])).unlink()
    with pytest.raises(InputError, match="was not copied completely"):
        vitsearch.cli.run.drive_on(out, Further())
