"""Who may compute on a machine: many that train, or one that measures.

By locks on two files, which hold across studies, clusters and users, and which the kernel releases whatever way a
process ends. Whoever measures takes the first for itself; whoever trains looks there between batches, and while it
is taken lets go of its part of the second, whose last part gone tells that nothing computes any more. The third is
for who has waited in vain and computes all the same: whoever measures only looks whether anybody has a part of it.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

FOLDER = Path("/tmp/vitsearch-turns")  # noqa: S108 - of the machine, whatever a process's own temporary folder is
MEASURING, COMPUTING, INSISTING = "measuring.lock", "computing.lock", "insisting.lock"
POLL_S = 0.02
TURN_TIMEOUT_S = 60.0
REST_TIMEOUT_S = 120.0
MOST_REST_S = 1800.0  # longer than any measurement: who holds the machine that long is no measurement of ours,
# and is not waited for again until the machine has been free once


class AtWork:
    """What computes on this machine while it is entered, and gives way to measurements.

    Attributes:
        rests: Whether it waits for a measurement; may be read from another thread.
    """

    def __init__(self) -> None:
        self._measuring, self._computing, self._insisting = map(_open, (MEASURING, COMPUTING, INSISTING))
        self.rests = False
        self._in_vain = False  # whether it has waited for too long for a machine that has not been free since

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._computing, self._insisting):
            fcntl.flock(file, fcntl.LOCK_UN)

    def give_way(self) -> None:
        """Rest while something is measured; to be called between batches."""
        if not (self._may_begin() and _take(self._computing, fcntl.LOCK_SH)):
            if not self._in_vain:
                fcntl.flock(self._computing, fcntl.LOCK_UN)
            self._begin()

    def _begin(self) -> None:
        began = time.monotonic()
        while not (self._may_begin() and _take(self._computing, fcntl.LOCK_SH)):
            if self._in_vain or time.monotonic() - began > MOST_REST_S:
                self._in_vain = True
                _take(self._insisting, fcntl.LOCK_SH)  # who measures next is to know that it is not alone
                break
            self.rests = True
            time.sleep(POLL_S)
        self.rests = False

    def _may_begin(self) -> bool:
        free = _take(self._measuring, fcntl.LOCK_SH)
        if free:
            for file in (self._measuring, self._insisting):
                fcntl.flock(file, fcntl.LOCK_UN)
            self._in_vain = False
        return free

    def __del__(self) -> None:
        for file in (self._measuring, self._computing, self._insisting):
            os.close(file)


@contextmanager
def machine_to_itself() -> Iterator[bool]:
    """Measure while nothing else does on this machine, once everything that trains there rests.

    Yields:
        Whether all do; one that does not come to rest within two minutes runs beside the measurement.

    Raises:
        TimeoutError: Others have been measuring for a minute.
    """
    measuring, computing, insisting = map(_open, (MEASURING, COMPUTING, INSISTING))
    try:
        if not _take_within(measuring, TURN_TIMEOUT_S):
            raise TimeoutError("others measure on this machine")
        all_rest = _take_within(computing, REST_TIMEOUT_S) and _take(insisting, fcntl.LOCK_EX)
        fcntl.flock(insisting, fcntl.LOCK_UN)
        yield all_rest
    finally:
        for file in (insisting, computing, measuring):
            os.close(file)


def _open(name: str) -> int:
    path = FOLDER / name
    if not FOLDER.exists():
        FOLDER.mkdir(exist_ok=True)
        FOLDER.chmod(0o1777)  # for every user
    try:
        return os.open(path, os.O_RDONLY)  # creating is refused in such a folder where the file is another user's
    except FileNotFoundError:
        file = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
        os.fchmod(file, 0o644)  # whatever the user's mask: others take their turns by it
        return file


def _take(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _take_within(file: int, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not _take(file, fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
