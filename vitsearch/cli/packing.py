"""What travels to a cluster with a job: our code, the job, and the files that it names by relative paths."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from vitsearch.artifacts import is_folder, join, names_in, workspace
from vitsearch.config import JobSpec, Place
from vitsearch.config.paths import files_below, from_folder, is_there, stays
from vitsearch.errors import InputError, StudyError

JOB_NAME = "job.yaml"
FILES = "files"
DATABASE_NAME = "database.txt"
REQUIREMENTS = "requirements.json"
MAX_MB = 400  # Ray's head takes no more than 500 in one piece
PRIVATE = 0o600
AGAIN = "submit the job again under a new name, and with a new --out where it has one"
MTIME = (2020, 1, 1, 0, 0, 0)  # the same content is the same package, which the cluster then has already


def write_package(
    to: Path,
    job: JobSpec | None = None,
    *,
    folder: Path | None = None,
    where: str = "",
    database: str | None = None,
) -> None:
    """Write a zip file from which a cluster's head runs this vitsearch.

    Args:
        to: The file.
        job: The job with paths as written; None for a package without one.
        folder: Where its relative paths begin.
        where: The job's file, for messages.
        database: Address of the database that holds a study; in a file, since command lines are seen by all. It
            and the job are unpacked there for the user alone that Ray runs as.

    Raises:
        InputError: A file that the job names is missing, or they are too large together.
    """
    from vitsearch.cli.run_folder import job_yaml

    brought: dict[Path, str] = {}

    def travel(path: Path) -> Path:
        if stays(path):
            return path
        source = from_folder(path, folder or Path())
        return Path(brought.setdefault(source, f"{FILES}/{len(brought)}-{source.name}"))

    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as package:
        for source, name in _code():
            _add(package, source, name)
        package.writestr(_entry(REQUIREMENTS), json.dumps(metadata.requires("vitsearch") or []))
        if database is not None:
            package.writestr(_entry(DATABASE_NAME, PRIVATE), database)
        if job is not None:
            package.writestr(_entry(JOB_NAME, PRIVATE), job_yaml(job.with_paths(travel)))
            _check_size(brought, where)
            for source, name in brought.items():
                for file in _files(source):
                    _add(
                        package, file, name if file == source else f"{name}/{file.relative_to(source).as_posix()}"
                    )


def keep_files(files: Path, root: str) -> Callable[[Path], Place]:
    """Where files that travelled are to stay beside a study's weights, for trainers and for a later driver.

    Args:
        files: The package's folder of them, relative as the job names it.
        root: Where the study keeps what its trials make.

    Returns:
        What a path of the job becomes.
    """
    kept = join(root, files.name)

    def kept_at(path: Path) -> Place:
        if stays(path):
            return from_folder(path, Path())
        name = _kept_name(path, root)
        return Path(kept, name) if is_folder(root) else join(kept, name)

    return kept_at


def copy_files(files: Path, root: str) -> None:
    """Copy them there, so that ``check_files`` sees whether it was done.

    Raises:
        StudyError: The disk or the store refuses.
    """
    if files.is_dir():
        try:
            _copy(files, root)
        except OSError as error:
            first = error.args[0][0][-1] if isinstance(error, shutil.Error) else error.strerror or error
            raise StudyError(
                f"{root}: the job's files cannot be copied ({first}); mend that, and {AGAIN}"
            ) from error


def check_files(job: JobSpec, root: str) -> None:
    """Refuse to go on with a study whose files have never all been copied: the package that held them is gone.

    Args:
        job: The job as stored.
        root: Where its files were to stay.

    Raises:
        InputError: A file is missing.
        OSError: The store refuses.
    """
    kept = join(root, FILES, "")
    named = [place.removeprefix(kept) for place in map(str, job.places) if place.startswith(kept)]
    there = names_in(kept) if named else []
    for name in named:
        if name.partition("/")[0] not in there:
            raise InputError(
                "was not copied completely when the job was submitted", value=f"{kept}{name}", remedy=AGAIN
            )


def _copy(files: Path, root: str) -> None:
    kept = join(root, files.name)
    if is_folder(root):
        partial = Path(f"{kept}.partial")
        shutil.copytree(files, partial)
        partial.rename(kept)  # half a folder of images would be searched as if it were all of it
        return
    with workspace(kept, fetch=()) as place, tempfile.TemporaryDirectory(prefix="vitsearch-") as temporary:
        for source in sorted(files.iterdir()):
            name = _kept_name(source, root)
            if source.is_dir():  # one object instead of one for each image
                made = shutil.make_archive(str(Path(temporary) / source.name), "zip", source)
                shutil.move(made, place.folder / name)
            else:
                shutil.copyfile(source, place.folder / name)
            place.publish(name)
            (place.folder / name).unlink()


def _kept_name(path: Path, root: str) -> str:
    return f"{path.name}.zip" if path.is_dir() and not is_folder(root) else path.name


def _code() -> Iterator[tuple[Path, str]]:
    """Our two packages and the presets, which stand apart in a checkout."""
    import vitsearch
    import workers

    for package in (vitsearch, workers):
        root = Path(str(package.__file__)).parent
        for file in _files(root):
            if file.suffix != ".pyc":
                yield file, f"{root.name}/{file.relative_to(root).as_posix()}"
    presets = Path(str(vitsearch.__file__)).parents[1] / "search_spaces"
    if presets.is_dir():
        for file in sorted(presets.glob("*.yaml")):
            yield file, f"vitsearch/_search_spaces/{file.name}"


def _files(source: Path) -> list[Path]:
    return [source] if source.is_file() else sorted(file for file in files_below(source) if file.is_file())


def _check_size(brought: dict[Path, str], where: str) -> None:
    for source in brought:
        if not is_there(source):
            raise InputError("names a file that does not exist here", where=where, value=str(source),
                             remedy="a relative path travels with the job; write an absolute one for a file that "
                             "lies on the cluster")  # fmt: skip
    num_mb = sum(file.stat().st_size for source in brought for file in _files(source)) / 1e6
    if num_mb > MAX_MB:
        named = ", ".join(str(source) for source in brought)
        raise InputError(
            f"names files of {num_mb:,.0f} MB in all ({named}), and at most {MAX_MB} MB travel with a job",
            where=where, remedy="put them where the cluster sees them, and write an absolute path",
        )  # fmt: skip


def _add(package: zipfile.ZipFile, source: Path, name: str) -> None:
    with source.open("rb") as file, package.open(_entry(name), "w", force_zip64=True) as entry:
        shutil.copyfileobj(file, entry)


def _entry(name: str, mode: int = 0o644) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, MTIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = mode << 16
    return entry
