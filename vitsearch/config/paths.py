"""Paths that people write."""

from __future__ import annotations

import os
from collections.abc import Iterator
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


def files_below(folder: Path, _around: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """All that is no folder below a folder, also through links; one back to a folder around it is not followed."""
    real = Path(os.path.realpath(folder))
    if real in _around or not real.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from files_below(path, _around | {real, *real.parents})
        else:
            yield path
