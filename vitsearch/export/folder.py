"""A folder that appears whole or not at all."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vitsearch.errors import ExportError, InputError
from vitsearch.export.contents import BUNDLE_FILES, METRICS_FILE, OPTIONAL_FILES


@contextmanager
def appearing_folder(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield an empty sibling of ``out`` to fill; it becomes ``out`` at the end, and vanishes on any failure.

    Args:
        out: A folder that does not exist, is empty, or, with ``overwrite``, is an older bundle and nothing else.
        overwrite: Whether an older bundle is replaced.

    Raises:
        InputError: ``out`` cannot be used.
        ExportError: The disk refuses.
    """
    require_free(out, overwrite=overwrite)
    target = out.resolve()
    tag = uuid.uuid4().hex[:8]
    partial, old = (target.with_name(f".{target.name}.{tag}.{what}") for what in ("partial", "old"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        yield partial
        require_free(out, overwrite=overwrite)
        if target.exists():
            target.rename(old)
        partial.rename(target)
    except OSError as error:
        raise ExportError(f"{out} could not be written: {error.strerror or error}") from error
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        for folder in (partial, old):
            shutil.rmtree(folder, ignore_errors=True)


def require_free(out: Path, *, overwrite: bool) -> None:
    """Refuse a place where something would be lost.

    Raises:
        InputError: ``out`` is a file, or a folder with anything in it but, with ``overwrite``, an older bundle.
    """
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir():
        raise InputError("must be a new folder", where=str(out), remedy="choose another place")
    names = {entry.name for entry in out.iterdir()}
    if not names:
        return
    if METRICS_FILE in names and names <= {*BUNDLE_FILES, *OPTIONAL_FILES}:
        if overwrite:
            return
        remedy = "choose another folder, or replace it with --overwrite (overwrite=True in Python)"
        raise InputError("already holds a bundle", where=str(out), remedy=remedy)
    raise InputError(
        "must be a new or empty folder", where=str(out), value=sorted(names)[:3], remedy="choose another folder"
    )
