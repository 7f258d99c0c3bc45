"""Studies without a run's folder: what they must name, and where files that travelled stay."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tests.unit.report import factory
from vitsearch.cli.ending import next_steps
from vitsearch.cli.job_checks import check_lasting
from vitsearch.cli.packing import DATABASE_NAME, check_files, copy_files, keep_files, write_package
from vitsearch.cli.run_folder import study_folder
from vitsearch.cli.session import Ended
from vitsearch.config import JobSpec
from vitsearch.errors import InputError, StudyError
from vitsearch.report import StudyReport
from vitsearch.report.progress import stored_progress
from vitsearch.search import is_scratch, resume_command
from workers import inside

WHOLE: dict[str, Any] = {
    "storage": {"url": "sqlite:////studies/all.db", "artifacts": "s3://bucket/studies"},
    "tracking": {"uri": "http://mlflow:5000"},
}


def test_a_job_that_leaves_nothing_in_a_folder_needs_none() -> None:
    check_lasting(factory.job(**WHOLE), "job.yaml")
    check_lasting(factory.job(**{**WHOLE, "tracking": {"enabled": False}}), "job.yaml")


def test_everything_that_is_missing_is_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        check_lasting(factory.job(storage={"optuna_mirror": True}), "job.yaml")
    found = [caught.value, *caught.value.more]
    assert {one.field for one in found} == {
        "storage.url", "storage.artifacts", "storage.optuna_mirror", "tracking.uri"
    }  # fmt: skip
    assert all(one.where == "job.yaml" and one.remedy.endswith("or give --out") for one in found)
    on_cluster = factory.job(storage={"artifacts": "/studies"})
    check_lasting(on_cluster, "job.yaml", on_cluster=True)  # whose head may name the rest
    with pytest.raises(InputError, match=r"storage\.url"):
        check_lasting(on_cluster, "job.yaml")


def test_the_folder_is_gone_afterwards_and_messages_name_the_study(tmp_path: Path) -> None:
    job = factory.job(**WHOLE, name="my-digits")
    with study_folder(None, job) as folder:
        assert is_scratch(folder)
        assert resume_command(folder).startswith("vitsearch resume --study my-digits (with --address")
        (folder / "file").write_bytes(b"")
    assert not folder.exists()
    with study_folder(tmp_path, job) as folder:
        assert folder == tmp_path
    assert resume_command(tmp_path) == f"vitsearch resume {tmp_path}"


def test_what_is_said_at_the_end_names_the_database_but_no_password(tmp_path: Path) -> None:
    report = factory.report(tmp_path, factory.job(storage=WHOLE["storage"], tracking={"enabled": False}), 10)
    ended = Ended(report=report, reason="trial budget used", interrupted=False, problems=[])
    with study_folder(None, report.job) as folder:
        text = next_steps(folder, ended)
    words = "--study digits --database sqlite:////studies/all.db"
    assert f"vitsearch export {words} --select knee --out bundle" in text
    assert f"vitsearch resume {words} --trials N" in text
    assert "pareto.png" not in text


@pytest.mark.parametrize("enabled", [False, True])
def test_a_run_is_browsed_only_where_it_was_recorded(tmp_path: Path, enabled: bool) -> None:
    report = factory.report(tmp_path, factory.job(tracking={"enabled": enabled}), 4)
    text = next_steps(tmp_path, Ended(report=report, reason="done", interrupted=False, problems=[]))
    assert (f"browse   vitsearch ui {tmp_path}" in text) == enabled


def travelled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (folder / "files" / "1-photos" / "cat").mkdir(parents=True)
    (folder / "files" / "0-digits.npz").write_bytes(b"digits")
    (folder / "files" / "1-photos" / "cat" / "1.png").write_bytes(b"cat")
    monkeypatch.chdir(folder)
    return Path("files")


def test_files_stay_in_a_folder_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, root = travelled(tmp_path, monkeypatch), str(tmp_path / "store" / "digits")
    stays = keep_files(files, root)
    assert stays(Path("files/0-digits.npz")) == tmp_path / "store/digits/files/0-digits.npz"
    assert stays(Path("/data/photos")) == Path("/data/photos")
    assert stays(Path("~/photos")) == Path.home() / "photos"
    copy_files(files, root)
    assert (tmp_path / "store/digits/files/1-photos/cat/1.png").read_bytes() == b"cat"


def test_files_stay_in_a_store_and_folders_become_one_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, root = travelled(tmp_path, monkeypatch), "memory://lasting/digits"
    stays = keep_files(files, root)
    assert stays(Path("files/0-digits.npz")) == "memory://lasting/digits/files/0-digits.npz"
    assert stays(Path("files/1-photos")) == "memory://lasting/digits/files/1-photos.zip"
    copy_files(files, root)
    store = fsspec.filesystem("memory")
    assert store.cat("/lasting/digits/files/0-digits.npz") == b"digits"
    with store.open("/lasting/digits/files/1-photos.zip") as file, zipfile.ZipFile(file) as archive:
        assert archive.read("cat/1.png") == b"cat"
    copy_files(tmp_path / "none", root)


def kept_job(files: Path, root: str) -> JobSpec:
    teacher = {"timm": "resnet18", "checkpoint": str(files / "0-digits.npz")}
    job = factory.job(
        dataset={"kind": "imagefolder", "path": str(files / "1-photos")},
        train={"distill": {"method": "soft", "teacher": teacher}},
    )
    return job.with_paths(keep_files(files, root))


@pytest.mark.parametrize("store", ["folder", "memory://arriving"])
def test_a_study_goes_on_only_with_all_of_its_files(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while they were copied, it took what was there for its data."""
    files, root = travelled(tmp_path, monkeypatch), str(tmp_path / "out") if store == "folder" else store
    job = kept_job(files, root)

    def killed(_: Path, to: Path | str, *__: Any) -> None:
        Path(to).mkdir(parents=True, exist_ok=True)
        (Path(to) / "1-photos").mkdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copytree", killed)
        patched.setattr(shutil, "make_archive", lambda to, *_: killed(Path(), f"{to}-partial"))
        with pytest.raises(KeyboardInterrupt):
            copy_files(files, root)
    with pytest.raises(InputError, match=r"was not copied completely .* again under a new name"):
        check_files(job, root)
    check_files(factory.job(), root)


@pytest.mark.parametrize("store", ["folder", "memory://arrived"])
def test_files_that_have_arrived_are_seen(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, root = travelled(tmp_path, monkeypatch), str(tmp_path / "out") if store == "folder" else store
    copy_files(files, root)
    check_files(kept_job(files, root), root)


def test_a_full_disk_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, to: Path) -> None:
        raise shutil.Error([(str(source), str(to), os.strerror(errno.ENOSPC))])

    files = travelled(tmp_path, monkeypatch)
    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(StudyError, match=r"cannot be copied \(No space left.*\); mend that, and submit"):
        copy_files(files, str(tmp_path / "out"))


def test_a_database_travels_in_a_file_and_not_in_a_command(tmp_path: Path) -> None:
    write_package(tmp_path / "package.zip", database="postgresql://u:secret@host/d")
    with zipfile.ZipFile(tmp_path / "package.zip") as package:
        assert package.read(DATABASE_NAME) == b"postgresql://u:secret@host/d"
    write_package(tmp_path / "other.zip")
    with zipfile.ZipFile(tmp_path / "other.zip") as package:
        assert DATABASE_NAME not in package.namelist()


def test_what_a_head_remembers_is_its_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "logs").mkdir()
    monkeypatch.setattr(inside, "log_folder", lambda: tmp_path / "logs")
    assert inside.remembered("digits") is None
    inside.remember("digits", "one")
    inside.remember("digits", "two")
    assert inside.remembered("digits") == "two"
    (file,) = (tmp_path / "vitsearch").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_progress_from_the_database_counts_what_a_driver_would(tmp_path: Path) -> None:
    report: StudyReport = factory.report(
        tmp_path, factory.job(constraints=[{"metric": "eer", "max": 12}]), 40, fail_every=10
    )
    progress = stored_progress(report)
    assert progress.ended + progress.rejected == 40
    assert progress.failed
    assert progress.front == len(report.front)
    assert progress.best_accuracy == max(trial.figures["accuracy"] for trial in report.front)
