"""A study as a folder that stands alone: packed on the cluster, unpacked here."""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
from pathlib import Path

from vitsearch.artifacts import workspace
from vitsearch.cli.finding import FoundStudy
from vitsearch.config import StorageSpec
from vitsearch.errors import InputError, StudyError
from vitsearch.report import StudyReport, select_trial
from vitsearch.search.places import SAMPLE_FILE, Places
from vitsearch.storage import TrialRecord

WEIGHTS = "none, front, or what --select takes"


def pack_study(found: FoundStudy, weights: str, file: Path) -> dict[str, str | int]:
    """Write a study, and the weights that are asked for, as a tar file.

    Args:
        found: The study.
        weights: ``none``, ``front``, or a selection as ``vitsearch export`` takes it.
        file: Where to.

    Returns:
        The file's ``sha256`` and ``bytes``.

    Raises:
        InputError: The selection names no exportable trial, or its weights lie in a folder that is not known here.
        StudyError: Nothing was found yet that could be exported.
    """
    from vitsearch.cli.session import JOB_FILE, job_yaml

    store = found.store
    chosen = [] if weights == "none" else _chosen(StudyReport.load(store), weights)
    with tempfile.TemporaryDirectory(prefix="vitsearch-") as temporary:
        copy = Path(temporary)
        job = store.copy_to(copy)
        (copy / JOB_FILE).write_text(job_yaml(job), encoding="utf-8")
        try:
            with tarfile.open(file, "w") as package:
                for made in sorted(copy.iterdir()):
                    package.add(made, made.name)
                if chosen:
                    _add_files(package, found.places, chosen)
        except OSError as error:
            file.unlink(missing_ok=True)
            raise StudyError(f"{file}: {error.strerror or error}; make room on the cluster's head") from error
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return {"sha256": digest, "bytes": file.stat().st_size}


def unpack_study(file: Path, folder: Path) -> None:
    """Unpack what ``pack_study`` wrote; nothing can land outside the folder.

    Raises:
        InputError: The folder cannot be written, or the archive holds what it should not.
    """
    try:
        with tarfile.open(file, "r:") as package:
            package.extractall(folder, filter="data")
    except (tarfile.TarError, KeyError, ValueError, EOFError) as error:  # KeyError: a link to what is not there
        raise InputError(f"is no study's archive ({error})", where=str(file)) from error
    except OSError as error:
        raise InputError(f"cannot be written ({error.strerror})", where=str(folder)) from error


def require_alone(folder: Path) -> None:
    """Refuse an unpacked study that leads elsewhere: its sender wrote it, and placeholders are filled in here.

    Raises:
        StudyError: Its job names a database or a place of artifacts.
    """
    from vitsearch.cli.session import JOB_FILE, open_study
    from vitsearch.config import load_job

    def check(storage: StorageSpec) -> None:
        if storage.url is not None or storage.artifacts is not None:
            raise StudyError("the cluster's copy of the study leads to other places, and is not opened")

    if (folder / JOB_FILE).is_file():
        check(load_job(folder / JOB_FILE).storage)
    check(open_study(folder).study().job.storage)


def _chosen(report: StudyReport, weights: str) -> list[TrialRecord]:
    return report.front if weights == "front" else [select_trial(report, weights)]


def _add_files(package: tarfile.TarFile, places: Places, trials: list[TrialRecord]) -> None:
    """The sample of images, and the weights of trials, under the names that a run's folder has for them."""
    copy = Places(root="artifacts")
    wanted = [(places.root, copy.root, [SAMPLE_FILE])]
    for trial in trials:
        for source, target in ((places.trial, copy.trial), (places.final, copy.final)):
            wanted.append((source(trial.number), target(trial.number), ["*.safetensors", "*.json"]))
    for source_place, target_place, patterns in wanted:
        with workspace(source_place, patterns) as place:
            for pattern in patterns:
                for file in sorted(place.folder.glob(pattern)):
                    package.add(file, f"{target_place}/{file.name}")
