"""Temporary folders that do not outlive their process for long, whatever way it ends.

Processes that are killed clean up nothing. So each folder holds a locked file, and whoever makes the next one
deletes those that nobody holds any more: the kernel releases a lock with its process, and, unlike a process id,
it means the same in every container that shares the parent folder.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "vitsearch-work-"
LOCK, WORK = "lock", "work"
SPARE_S = 60.0
"""A folder this young may not be locked yet."""


@contextmanager
def scratch_folder(
    prefix: str = PREFIX, parent: Path | None = None, *, spare_s: float = SPARE_S
) -> Iterator[Path]:
    """An empty folder, deleted afterwards.

    Args:
        prefix: Begins the names of such folders, and of nothing else.
        parent: Where they are made; by default where the system puts temporary files.
        spare_s: Age in seconds at which one that is not locked counts as left behind.
    """
    parent = parent or Path(tempfile.gettempdir())
    _delete_left(prefix, parent, spare_s)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as temporary:
        lock = _open(Path(temporary))
        try:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder = Path(temporary, WORK)
            folder.mkdir()
            yield folder
        finally:
            os.close(lock)


def _delete_left(prefix: str, parent: Path, spare_s: float) -> None:
    for folder in parent.glob(f"{prefix}*"):
        with suppress(OSError):  # held, or gone meanwhile
            if _may_be_left(folder, spare_s):
                lock = _open(folder)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
                finally:
                    os.close(lock)


def _may_be_left(folder: Path, spare_s: float) -> bool:
    """Whether it is an old folder of this user; in a folder that all may write, a link could lead to anything."""
    found = folder.lstat()
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return ours and time.time() - found.st_mtime > spare_s


def _open(folder: Path) -> int:
    return os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
