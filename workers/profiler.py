"""The Ray actor that measures."""

from __future__ import annotations

import fcntl
import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vitsearch.messages import ProfileRequest


class Profiler:
    """A persistent process on the target's node that measures one model at a time."""

    def machine(self) -> str:
        """Host name of the target's node."""
        return platform.node()

    def run(self, request_json: str) -> str:
        """Measure a trained model; returns a profile as JSON.

        Raises:
            Exception: Whatever went wrong; the executor reports it with the measurement.
        """
        from vitsearch.profile import run_profile
        from vitsearch.trial import load_model

        request = ProfileRequest.model_validate_json(request_json)
        model = load_model(request.candidate, Path(request.artifact_dir))
        with machine_to_itself():
            return run_profile(request, model).model_dump_json()


@contextmanager
def machine_to_itself() -> Iterator[None]:
    """Wait until no other study measures on this machine, and keep others waiting meanwhile.

    A lock on a file: it holds across studies, clusters and users, and the kernel releases it whatever way the
    process ends.
    """
    path = Path(tempfile.gettempdir()) / "vitsearch-measuring.lock"
    try:
        file = os.open(path, os.O_RDONLY)  # creating is refused in /tmp where the file is another user's
    except FileNotFoundError:
        file = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
