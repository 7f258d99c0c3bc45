"""What a job on a cluster leaves for those who look from outside: small files in Ray's log folder."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import ray

from workers.cluster import SUBMISSION_VARIABLE, state_file


def this_submission() -> str | None:
    """The id under which this process was submitted; None where it was started by hand."""
    return os.environ.get(SUBMISSION_VARIABLE) or None


def log_folder() -> Path:
    """The folder of this node that Ray's dashboard hands out; Ray must be initialised."""
    return Path(ray._private.worker.global_worker.node.get_logs_dir_path())  # noqa: SLF001 - no public way


def remember(name: str, text: str) -> None:
    """Keep something for later jobs of this head, for the user alone; Ray must be initialised.

    It lasts as long as the cluster's own memory of what was submitted. The dashboard does not hand it out.
    """
    folder = _memory_folder()
    folder.mkdir(mode=0o700, exist_ok=True)
    partial = folder / f".{name}.partial"
    partial.touch(mode=0o600)
    partial.write_text(text, encoding="utf-8")
    partial.replace(folder / name)


def remembered(name: str) -> str | None:
    """What ``remember`` has kept under a name; Ray must be initialised."""
    try:
        return (_memory_folder() / name).read_text(encoding="utf-8")
    except OSError:
        return None


def _memory_folder() -> Path:
    return log_folder().parent / "vitsearch"


class StateFile:
    """The state of a submitted job, replaced as a whole at each change.

    Args:
        submission: Its id.
    """

    def __init__(self, submission: str) -> None:
        self._name = state_file(submission)
        self._folder: Path | None = None

    def write(self, text: str) -> None:
        """Replace the file; nothing happens before Ray runs, and a full disk is no reason to stop a search."""
        if self._folder is None:
            if not ray.is_initialized():
                return
            self._folder = log_folder()
        partial = self._folder / f".{self._name}.partial"
        with suppress(OSError):
            partial.write_text(text, encoding="utf-8")
            partial.replace(self._folder / self._name)
