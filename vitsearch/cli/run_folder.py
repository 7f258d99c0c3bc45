"""A run's folder: made, opened, begun again, and the job in it."""

from __future__ import annotations

import os
import shlex
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vitsearch.artifacts import names_in
from vitsearch.config import JobSpec, load_job
from vitsearch.config.addresses import fields_with_password
from vitsearch.config.loading import dump_yaml
from vitsearch.errors import InputError, StudyError, first_line
from vitsearch.storage import DATABASE_FILE, DatabaseError, StudyStore, database_url, open_engine

JOB_FILE = "job.yaml"


@contextmanager
def study_folder(out: Path | None, job: JobSpec) -> Iterator[Path]:
    """The run's folder, or one that is gone afterwards, for a study that needs none."""
    from vitsearch.search import scratch_prefix

    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix=scratch_prefix(job.name), ignore_cleanup_errors=True) as temporary:
        yield Path(temporary)


def new_study(job: JobSpec, out: Path) -> StudyStore:
    """Make the run's folder and its study.

    Raises:
        InputError: The folder holds something already, or cannot be made; or the job's database is none.
        StudyError: The job's database cannot be reached, or holds a study of that name; no folder is left then.
    """
    if (out / JOB_FILE).exists() or (out / DATABASE_FILE).exists():
        raise _taken(out)
    if out.exists() and (not out.is_dir() or _names(out)):
        raise InputError("must be a new or empty folder", where=str(out), field="--out", remedy="choose another")
    _require_no_artifacts(job, out)
    engine = None if job.storage.url is None else open_engine(job.storage.url)
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    ours = False
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_job(job, out, new=True)  # of two that find the folder free, one gets it
        ours = True
        if engine is None:
            keep_private(job, out)
            engine = open_engine(database_url(out))
        return StudyStore.create(engine, job)
    except FileExistsError as error:
        raise _taken(out) from error
    except (OSError, StudyError, DatabaseError) as error:
        if engine is not None:
            engine.dispose()
        for file in [out / JOB_FILE, *out.glob(f"{DATABASE_FILE}*")] if ours else ():
            with suppress(OSError):
                file.unlink()
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        if isinstance(error, StudyError):
            raise
        if isinstance(error, DatabaseError):
            reason = first_line(getattr(error, "orig", None) or error)
            raise StudyError(f"the study's database refuses a new study ({reason})") from error
        raise InputError(f"cannot be written ({error.strerror})", where=str(out), field="--out") from error


def _require_no_artifacts(job: JobSpec, out: Path) -> None:
    if place := _artifacts_there(job, out):
        raise InputError("holds the artifacts of a study already", field="storage.artifacts", value=place,
                         remedy="change the job's name, or choose another place")  # fmt: skip


def _artifacts_there(job: JobSpec, out: Path) -> str:
    """The job's place of artifacts, if it names one and something is there; else empty."""
    if job.storage.artifacts is None:
        return ""
    from vitsearch.search import Places

    place = Places.of(job, out).root
    return place if _names_in(place) else ""


def _names(folder: Path) -> list[str]:
    """What lies in a folder, but for a job file whose writer was killed."""
    return [file.name for file in folder.iterdir() if not file.match(f".{JOB_FILE}.*.partial")]


def _linked(source: Path, target: Path) -> bool:
    """Give a file a second name that must be free; False where the file system knows no such names.

    Raises:
        FileExistsError: The name is taken.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        return False
    return True


def _names_in(place: str) -> list[str]:
    try:
        return names_in(place)
    except OSError as error:
        raise InputError(
            f"cannot be reached ({error.strerror or error})", field="storage.artifacts", value=place,
            remedy="check the address, the network and the credentials",
        ) from error  # fmt: skip


def _taken(out: Path) -> InputError:
    remedy = f"continue it with: vitsearch resume {shlex.quote(str(out))}, or choose another folder"
    return InputError("the folder holds a study already", where=str(out), field="--out", remedy=remedy)


def open_study(folder: Path) -> StudyStore:
    """The study of a run's folder.

    Raises:
        InputError: The folder holds no study.
    """
    if not (folder / JOB_FILE).is_file():
        raise InputError(
            "holds no study (no job.yaml)", where=str(folder), remedy="give the --out folder of a run"
        )
    job = load_job(folder / JOB_FILE)
    url = job.storage.url
    if url is None and not (folder / DATABASE_FILE).is_file():
        raise InputError(f"holds no study ({DATABASE_FILE} is missing)", where=str(folder))
    return StudyStore.find(open_engine(database_url(folder, url)), None if url is None else job.name)


def begun_study(folder: Path) -> StudyStore:
    """The study of a run's folder, to go on with; one whose driver died while it made the folder begins now.

    Raises:
        InputError: The folder holds no study.
        StudyError: Its database cannot be reached, or holds another one.
    """
    try:
        return open_study(folder)
    except (InputError, StudyError):
        if not has_only_begun(folder):
            raise
    job = load_job(folder / JOB_FILE)
    if job.storage.url is None:
        keep_private(job, folder)
    return StudyStore.create(open_engine(database_url(folder, job.storage.url)), job)


def has_only_begun(folder: Path) -> bool:
    """Whether there is nothing of a study but its job and its database, if that, in its folder or elsewhere.

    Raises:
        InputError: The job cannot be read, or its place of artifacts not be reached.
    """
    if not (folder / JOB_FILE).is_file():
        return False
    if any(name != JOB_FILE and not name.startswith(DATABASE_FILE) for name in _names(folder)):
        return False
    return not _artifacts_there(load_job(folder / JOB_FILE), folder)


def write_job(job: JobSpec, out: Path, *, new: bool = False) -> None:
    """Keep the job in the run's folder, whole or not at all; for its owner alone where it holds a password.

    Raises:
        FileExistsError: It is to be ``new``, and there is one.
        OSError: The folder cannot be written.
    """
    file, partial = out / JOB_FILE, out / f".{JOB_FILE}.{uuid.uuid4().hex}.partial"
    try:
        partial.touch(mode=0o600 if fields_with_password(job) else 0o666)
        partial.write_text(job_yaml(job), encoding="utf-8")
        if new and not _linked(partial, file):
            file.touch(exist_ok=False)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def keep_private(job: JobSpec, out: Path) -> None:
    """Let only its owner read the run's database where the job in it holds a password."""
    if not fields_with_password(job):
        return
    database = out / DATABASE_FILE
    database.touch(mode=0o600)  # SQLite gives the files that it makes beside it the same rights
    for file in out.glob(f"{DATABASE_FILE}*"):
        with suppress(PermissionError):  # somebody else's, who shares the folder
            file.chmod(0o600)


def job_yaml(job: JobSpec) -> str:
    """The job as a file a person can read and run again."""
    return dump_yaml(job.model_dump(mode="json", exclude_none=True))
