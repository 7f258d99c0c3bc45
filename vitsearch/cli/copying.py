"""A study as a folder that stands alone: packed on the cluster, unpacked here."""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
from pathlib import Path

from vitsearch.errors import InputError, StudyError
from vitsearch.report import StudyReport, select_trial
from vitsearch.storage import TrialRecord

WEIGHTS = "none, front, or what --select takes"


def pack_study(out: Path, weights: str, file: Path) -> dict[str, str | int]:
    """Write a study, and the weights that are asked for, as a tar file.

    Args:
        out: The run's folder.
        weights: ``none``, ``front``, or a selection as ``vitsearch export`` takes it.
        file: Where to.

    Returns:
        The file's ``sha256`` and ``bytes``.

    Raises:
        InputError: The folder holds no study, or the selection names no exportable trial.
        StudyError: Nothing was found yet that could be exported.
    """
    from vitsearch.cli.session import JOB_FILE, SAMPLE_FILE, job_yaml, open_study

    store = open_study(out)
    chosen = [] if weights == "none" else _chosen(StudyReport.load(store), weights)
    with tempfile.TemporaryDirectory(prefix="vitsearch-") as temporary:
        copy = Path(temporary)
        job = store.copy_to(copy)
        (copy / JOB_FILE).write_text(job_yaml(job), encoding="utf-8")
        try:
            with tarfile.open(file, "w") as package:
                for made in sorted(copy.iterdir()):
                    package.add(made, made.name)
                for name in (SAMPLE_FILE, *_weight_files(out, chosen)):
                    if (out / name).is_file():
                        package.add(out / name, str(name))
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
        with tarfile.open(file) as package:
            package.extractall(folder, filter="data")
    except tarfile.TarError as error:
        raise InputError(f"is no study's archive ({error})", where=str(file)) from error
    except OSError as error:
        raise InputError(f"cannot be written ({error.strerror})", where=str(folder)) from error


def _chosen(report: StudyReport, weights: str) -> list[TrialRecord]:
    return report.front if weights == "front" else [select_trial(report, weights)]


def _weight_files(out: Path, trials: list[TrialRecord]) -> list[Path]:
    from vitsearch.search import artifact_dir, final_dir

    folders = [place(out, trial.number) for trial in trials for place in (artifact_dir, final_dir)]
    kept = (file for folder in folders if folder.is_dir() for file in sorted(folder.iterdir()))
    return [file.relative_to(out) for file in kept if file.suffix in {".safetensors", ".json"}]
