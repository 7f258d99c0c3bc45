"""A study as a folder that stands alone: packed on the cluster, unpacked here."""

from __future__ import annotations

import fnmatch
import hashlib
import tarfile
import tempfile
from pathlib import Path

from vitsearch.artifacts import join, workspace
from vitsearch.cli.finding import FoundStudy
from vitsearch.config import StorageSpec
from vitsearch.errors import InputError, StudyError, hide_passwords
from vitsearch.messages import TrialResult
from vitsearch.report import StudyReport, select_trial
from vitsearch.search.places import SAMPLE_FILE, Places
from vitsearch.storage import StudyStore, TrialRecord, database_url, open_engine

WEIGHTS = "none, front, or what --select takes"
WEIGHT_FILES = "*.safetensors"
ATTEMPTS = 3


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
        StudyError: Nothing was found yet that could be exported, or the weights are gone.
    """
    for left in reversed(range(ATTEMPTS)):
        try:
            _pack(found, weights, file)
            break
        except _GoneError as error:
            if not left:
                raise StudyError(
                    f"{hide_passwords(str(error))}: is gone, though the study's front has this trial; restore the "
                    "file, or select another trial"
                ) from error
        except OSError as error:
            file.unlink(missing_ok=True)
            raise StudyError(f"{file}: {error.strerror or error}; make room on the cluster's head") from error
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return {"sha256": digest, "bytes": file.stat().st_size}


class _GoneError(Exception):
    """A file of a chosen trial is not there: a search deletes the weights of trials that have left its front."""


def _pack(found: FoundStudy, weights: str, file: Path) -> None:
    from vitsearch.cli.run_folder import JOB_FILE, job_yaml

    with tempfile.TemporaryDirectory(prefix="vitsearch-") as temporary:
        copy = Path(temporary)
        job = found.store.copy_to(copy)
        (copy / JOB_FILE).write_text(job_yaml(job), encoding="utf-8")
        chosen = [] if weights == "none" else _chosen(copy, weights)
        try:
            with tarfile.open(file, "w") as package:
                for made in sorted(copy.iterdir()):
                    package.add(made, made.name)
                if chosen:
                    _add_files(package, found.places, chosen)
        except _GoneError:
            file.unlink(missing_ok=True)
            raise


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
    from vitsearch.cli.run_folder import JOB_FILE, open_study
    from vitsearch.config import load_job

    def check(storage: StorageSpec) -> None:
        if storage.url is not None or storage.artifacts is not None:
            raise StudyError("the cluster's copy of the study leads to other places, and is not opened")

    if (folder / JOB_FILE).is_file():
        check(load_job(folder / JOB_FILE).storage)
    check(open_study(folder).study().job.storage)


def _chosen(copy: Path, weights: str) -> list[TrialRecord]:
    """The trials as the copy has them, which others than those of a study that goes on may be."""
    engine = open_engine(database_url(copy))
    try:
        report = StudyReport.load(StudyStore.find(engine))
    finally:
        engine.dispose()
    return report.front if weights == "front" else [select_trial(report, weights)]


def _add_files(package: tarfile.TarFile, places: Places, trials: list[TrialRecord]) -> None:
    """The sample of images, and the weights of trials, under the names that a run's folder has for them."""
    copy = Places(root="artifacts")
    _add_place(package, places.root, copy.root, [SAMPLE_FILE])
    for trial in trials:
        retrained = isinstance(trial.final, TrialResult)
        for source, target, needed in (
            (places.trial, copy.trial, not retrained), (places.final, copy.final, retrained),
        ):  # fmt: skip
            place = source(trial.number)
            try:
                names = _add_place(package, place, target(trial.number), [WEIGHT_FILES, "*.json"])
            except FileNotFoundError as error:
                raise _GoneError(error.filename or place) from error
            if needed and not fnmatch.filter(names, WEIGHT_FILES):
                raise _GoneError(join(place, WEIGHT_FILES))


def _add_place(package: tarfile.TarFile, source: str, target: str, patterns: list[str]) -> list[str]:
    """Pack the files of a place that match; returns their names."""
    with workspace(source, patterns) as place:
        files = [file for pattern in patterns for file in sorted(place.folder.glob(pattern))]
        for file in files:
            package.add(file, f"{target}/{file.name}")
    return [file.name for file in files]
