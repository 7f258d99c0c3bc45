"""Paths that people write."""

from __future__ import annotations

import os
from pathlib import Path


def from_folder(path: Path, folder: Path) -> Path:
    """A path as it is meant from a folder: absolute, a home written out, links followed.

    A home that nobody has, and links that go in circles, are left for whoever opens the file to complain of.
    """
    written = os.path.expanduser(path)  # noqa: PTH111 - pathlib's own raises where there is no such user
    if Path(written).is_absolute():
        return Path(written)
    return Path(os.path.realpath(folder / path))  # pathlib's own raises where links go in circles


def stays(path: Path) -> bool:
    """Whether a path is the same from every folder."""
    return Path(os.path.expanduser(path)).is_absolute()  # noqa: PTH111 - as above


def is_there(path: Path, *, as_file: bool = False) -> bool:
    """Whether a path leads to something, or to a file; one that no file can have does not."""
    try:
        return path.is_file() if as_file else path.exists()
    except (OSError, ValueError):
        return False
