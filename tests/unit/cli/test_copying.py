"""A study packed as a folder that stands alone."""

from __future__ import annotations

import errno
import hashlib
import io
import shutil
import tarfile
from pathlib import Path

import pytest

from tests.unit.report.factory import add_trials, job
from vitsearch.cli import copying
from vitsearch.cli.copying import pack_study, require_alone, unpack_study
from vitsearch.cli.finding import in_folder
from vitsearch.cli.results import front_json
from vitsearch.cli.run_folder import new_study, open_study, write_job
from vitsearch.errors import InputError, StudyError
from vitsearch.report import StudyReport
from vitsearch.search import Places
from vitsearch.storage import DataSummary, TrialRecord


@pytest.fixture
def study(tmp_path: Path, data: DataSummary) -> Path:
    out = tmp_path / "study"
    store = new_study(job(), out)
    store.acquire()
    store.set_data(data)
    add_trials(store, 12)
    places = Places.of(job(), out)
    for place in (places.trial(3), places.final(3), places.trial(5)):
        folder = Path(place)
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"weights")
        (folder / "epoch.pt").write_bytes(b"half a training")
    return out


@pytest.fixture
def data() -> DataSummary:
    from tests.unit.report.factory import DATA

    return DATA


def copied(study: Path, weights: str, to: Path) -> Path:
    archive = to / "study.tar"
    facts = pack_study(in_folder(study), weights, archive)
    assert facts == {
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(), "bytes": archive.stat().st_size
    }  # fmt: skip
    folder = to / "copy"
    folder.mkdir()
    unpack_study(archive, folder)
    return folder


def test_a_copy_tells_the_same_front_while_the_study_runs(study: Path, tmp_path: Path):
    copy = copied(study, "none", tmp_path)
    assert {file.name for file in copy.iterdir()} == {"job.yaml", "study.db"}
    here, there = (StudyReport.load(open_study(folder)) for folder in (study, copy))
    assert front_json(there) == front_json(here)
    assert [t.model_dump() for t in there.trials] == [t.model_dump() for t in here.trials]
    store = open_study(copy)
    store.acquire()  # the original's lease has not come along
    store.release("finished")


def test_the_weights_of_a_selection_come_along_and_checkpoints_do_not(study: Path, tmp_path: Path):
    front = [trial.number for trial in StudyReport.load(open_study(study)).front]
    chosen = front[0]
    folder = Path(Places.of(job(), study).trial(chosen))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(b"chosen")
    copy = copied(study, f"trial={chosen}", tmp_path)
    files = {str(file.relative_to(copy)) for file in copy.rglob("*") if file.suffix in {".safetensors", ".pt"}}
    here = Places(root="artifacts")
    assert files - {f"{here.final(chosen)}/model.safetensors"} == {f"{here.trial(chosen)}/model.safetensors"}


def test_trials_are_chosen_from_the_copy_and_copied_again_where_the_front_moves_on(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The study goes on meanwhile, and deletes the weights of what has left its front."""
    front = [trial.number for trial in StudyReport.load(open_study(study)).front]
    copies, chosen = [], iter([front[0], front[-1]])

    def choose(report: StudyReport, _: str) -> TrialRecord:
        copies.append(report.study.job.storage)
        number = next(chosen)
        folder = Path(Places.of(job(), study).trial(front[-1]))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.safetensors").write_bytes(b"chosen")
        return next(trial for trial in report.front if trial.number == number)

    shutil.rmtree(Places.of(job(), study).trials)
    monkeypatch.setattr(copying, "select_trial", choose)
    copy = copied(study, "knee", tmp_path)
    assert (copy / Places(root="artifacts").trial(front[-1]) / "model.safetensors").read_bytes() == b"chosen"
    assert len(copies) == 2


def test_weights_that_are_gone_are_named(study: Path, tmp_path: Path):
    shutil.rmtree(Places.of(job(), study).trials)
    with pytest.raises(
        StudyError, match=r"artifacts/trials/.*/\*\.safetensors: is gone, though .* front"
    ) as caught:
        pack_study(in_folder(study), "knee", tmp_path / "study.tar")
    assert "make room" not in str(caught.value)
    assert not (tmp_path / "study.tar").exists()


def test_a_file_that_vanishes_while_it_is_packed_is_named(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    gone = FileNotFoundError(errno.ENOENT, "No such file or directory", "/there/model.safetensors")

    def vanishing(_: object, source: str, *__: object) -> list[str]:
        if "trials" in source:
            raise gone
        return []

    monkeypatch.setattr(copying, "_add_place", vanishing)
    with pytest.raises(StudyError, match=r"/there/model\.safetensors: is gone"):
        pack_study(in_folder(study), "knee", tmp_path / "study.tar")


def test_a_full_disk_of_the_head_is_told(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(copying, "_add_files", full)
    with pytest.raises(StudyError, match="No space left on device; make room on the cluster's head"):
        pack_study(in_folder(study), "knee", tmp_path / "study.tar")


def test_nothing_leaves_the_folder(tmp_path: Path):
    archive = tmp_path / "evil.tar"
    with tarfile.open(archive, "w") as package:
        entry = tarfile.TarInfo("../outside.txt")
        entry.size = 4
        package.addfile(entry, io.BytesIO(b"evil"))
    (tmp_path / "copy").mkdir()
    with pytest.raises(InputError, match="is no study's archive"):
        unpack_study(archive, tmp_path / "copy")
    assert not (tmp_path / "outside.txt").exists()
    archive.write_bytes(b"no archive at all")
    with pytest.raises(InputError, match="is no study's archive"):
        unpack_study(archive, tmp_path / "copy")


def test_a_link_to_nothing_and_a_compressed_archive_are_refused(tmp_path: Path):
    archive = tmp_path / "evil.tar"
    with tarfile.open(archive, "w") as package:
        entry = tarfile.TarInfo("a")
        entry.type, entry.linkname = tarfile.LNKTYPE, "nowhere"
        package.addfile(entry)
    (tmp_path / "copy").mkdir()
    with pytest.raises(InputError, match="is no study's archive"):
        unpack_study(archive, tmp_path / "copy")
    with tarfile.open(archive, "w:gz") as package:  # a few bytes of it can fill a disk
        package.addfile(tarfile.TarInfo("a"))
    with pytest.raises(InputError, match="is no study's archive"):
        unpack_study(archive, tmp_path / "copy")


@pytest.mark.parametrize("storage", [{"url": "sqlite:////{}/made.db"}, {"artifacts": "{}"}])
@pytest.mark.parametrize("where", ["file", "database"])
def test_a_copy_that_leads_elsewhere_is_not_opened(
    study: Path, tmp_path: Path, storage: dict[str, str], where: str
):
    copy = copied(study, "none", tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    require_alone(copy)
    evil = job(storage={name: value.format(outside) for name, value in storage.items()})
    if where == "file":
        write_job(evil, copy)
    else:
        store = open_study(copy)
        store.acquire()
        store.set_job(evil)
    with pytest.raises(StudyError, match="leads to other places"):
        require_alone(copy)
    assert not list(outside.iterdir())
