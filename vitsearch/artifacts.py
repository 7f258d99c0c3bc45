"""Where weights and checkpoints lie: a folder, or whatever fsspec reaches (``s3://``, ``gs://``, ...).

A place is a string. Work is done in a local folder: in the place itself where that is one, else in a copy, whose
files are published one by one. Errors of any store are ``OSError``, as those of a disk are.
"""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from vitsearch.errors import InputError, first_line, hide_password, hide_passwords
from vitsearch.scratch import scratch_folder

# they show a file once all of it has arrived, and move it by copying; everything else shows what has come so far
OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "oci", "tos"}
CLAIM_FILE = "claim"
_PARTIAL = re.compile(r"\.(.+)\.[0-9a-f]{32}\.partial")


def join(place: str, *names: str) -> str:
    """A place inside a place."""
    return "/".join([place.rstrip("/"), *names])


def is_folder(place: str) -> bool:
    """Whether a place is a folder that this machine sees."""
    return "://" not in place


def check_place(place: str) -> None:
    """Refuse a place that nothing installed here reaches.

    Raises:
        InputError: Its protocol is unknown, or needs a package that is missing; or each process has its own.
    """
    if is_folder(place):
        if not Path(place).is_absolute():
            raise InputError("must be an absolute folder or an address", field="storage.artifacts", value=place,
                             remedy="write /FOLDER or s3://BUCKET/FOLDER")  # fmt: skip
        return
    if place.startswith("memory://"):
        raise InputError("must be a place that every process sees", field="storage.artifacts", value=place,
                         remedy="write /FOLDER or s3://BUCKET/FOLDER")  # fmt: skip
    check_address(place, field="storage.artifacts")


def check_address(place: str, *, field: str) -> None:
    """Refuse an address that nothing installed here reaches.

    Args:
        place: With ``://`` in it.
        field: The job's field, for messages.

    Raises:
        InputError: Its protocol is unknown, or needs a package that is missing.
    """
    import fsspec

    protocol = place.partition("://")[0]
    try:
        fsspec.get_filesystem_class(protocol)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"names a store that nothing here reaches ({first_line(error)})", field=field,
            value=hide_password(place), remedy="install the package named, wherever drivers and workers run",
        ) from error  # fmt: skip


class Workspace:
    """A local folder in the place of another one.

    Args:
        place: Where files belong.
        folder: Where they are worked on.
    """

    def __init__(self, place: str, folder: Path) -> None:
        self.place, self.folder = place, folder

    def publish(self, *names: str) -> None:
        """Put files where they belong, each whole or not at all: a kill on the way leaves the one of before.

        Raises:
            OSError: The store refuses.
        """
        if is_folder(self.place):
            return
        with _store(self.place) as (store, root):
            store.makedirs(root, exist_ok=True)
            for name in names:
                if self.place.partition("://")[0] in OBJECT_STORES:
                    store.put_file(str(self.folder / name), f"{root}/{name}")
                else:
                    _put_whole(store, self.folder / name, root)


@contextmanager
def workspace(place: str, fetch: Sequence[str] = ("*",)) -> Iterator[Workspace]:
    """Work on the files of a place.

    Args:
        place: A folder or an address; it need not exist yet.
        fetch: Patterns of the files that are needed.

    Raises:
        OSError: The store refuses.
    """
    if is_folder(place):
        yield Workspace(place, Path(place))
        return
    with scratch_folder() as folder:
        with _store(place) as (store, root):
            for name in _entries(store, root):
                if not _PARTIAL.fullmatch(name) and any(fnmatch(name, pattern) for pattern in fetch):
                    store.get_file(f"{root}/{name}", str(folder / name))
        yield Workspace(place, folder)


def claim(place: str) -> str:
    """Give a place to one that is to work there; whoever works there already is to find out by ``claim_on``.

    Returns:
        The claim.

    Raises:
        OSError: The store refuses.
    """
    own = uuid.uuid4().hex
    with workspace(place, fetch=()) as there:
        there.folder.mkdir(parents=True, exist_ok=True)
        partial = there.folder / f".{CLAIM_FILE}.{own}.partial"
        partial.write_text(own, encoding="utf-8")
        partial.replace(there.folder / CLAIM_FILE)
        there.publish(CLAIM_FILE)
    return own


def claim_on(place: str) -> str:
    """The last claim on a place; empty where there is none.

    Raises:
        OSError: The store refuses.
    """
    try:
        if is_folder(place):
            return (Path(place) / CLAIM_FILE).read_text(encoding="utf-8")
        with _store(place) as (store, root):
            return str(store.cat_file(f"{root}/{CLAIM_FILE}").decode())
    except FileNotFoundError:
        return ""


def names_in(place: str) -> list[str]:
    """What lies directly in a place, sorted; nothing where there is no such place."""
    return [name for name in _entries_in(place) if not _PARTIAL.fullmatch(name)]


def remove(place: str, patterns: Iterable[str]) -> None:
    """Delete the files of a place that match, and what a kill left of them; those not there are no error."""
    patterns, entries = list(patterns), _entries_in(place)
    meant = {name: partial[1] if (partial := _PARTIAL.fullmatch(name)) else name for name in entries}
    chosen = [name for name in entries if any(fnmatch(meant[name], pattern) for pattern in patterns)]
    if is_folder(place):
        for name in chosen:
            (Path(place) / name).unlink(missing_ok=True)
    elif chosen:
        with _store(place) as (store, root):
            for name in chosen:
                store.rm_file(f"{root}/{name}")


def discard(place: str) -> None:
    """Delete a place with all that lies in it; one that is not there is no error.

    Raises:
        OSError: The store refuses.
    """
    with suppress(FileNotFoundError):
        if is_folder(place):
            shutil.rmtree(place)
        else:
            with _store(place) as (store, root):
                store.rm(root, recursive=True)


def _put_whole(store: Any, file: Path, root: str) -> None:
    """Send a file under a name of its own, so that the one in its place is whole at any moment."""
    partial, target = f"{root}/.{file.name}.{uuid.uuid4().hex}.partial", f"{root}/{file.name}"
    try:
        store.put_file(str(file), partial)
        try:
            store.mv(partial, target)
        except Exception:
            if not store.exists(target):
                raise
    except BaseException:
        with suppress(Exception):
            store.rm_file(partial)
        raise
    if store.exists(partial):  # such a store moves onto no file; from here on this one is all there is
        store.rm_file(target)
        store.mv(partial, target)


def _entries_in(place: str) -> list[str]:
    if is_folder(place):
        folder = Path(place)
        return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    with _store(place) as (store, root):
        return _entries(store, root)


def _entries(store: Any, root: str) -> list[str]:
    try:
        return sorted(str(entry).rstrip("/").rpartition("/")[2] for entry in store.ls(root, detail=False))
    except FileNotFoundError:
        return []


@contextmanager
def _store(place: str) -> Iterator[tuple[Any, str]]:
    import fsspec

    try:
        store, root = fsspec.core.url_to_fs(place)
        store.invalidate_cache()  # other processes write there, too
        yield store, str(root).rstrip("/")
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{hide_password(place)}: {type(error).__name__}: {hide_passwords(str(error))}") from error
