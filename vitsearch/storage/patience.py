"""Waiting for a database that has gone away, such as a PostgreSQL server that restarts."""

from __future__ import annotations

import functools
import sqlite3
import time
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from vitsearch.errors import first_line

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
# SQLSTATEs: connection exceptions; the server shuts down, crashes or starts; it has no connection left.
AWAY = ("08", "57P01", "57P02", "57P03", "53300")

P = ParamSpec("P")
R = TypeVar("R")


class Waits(Protocol):
    """Something whose methods may wait for its database.

    Attributes:
        patience_s: For how long; the database's own error is raised then.
        on_wait: Told what is the matter, before each pause.
    """

    patience_s: float
    on_wait: Callable[[str], None]


S = TypeVar("S", bound=Waits)


def patiently(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Call a method again, after 0.1, 0.2, 0.4, ... 5 seconds, while its database is away.

    The method must be one transaction that may run twice: a server can go down after it has committed and before
    it has said so.
    """

    @functools.wraps(method)
    def waiting(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        failed_at, pause_s = None, FIRST_PAUSE_S
        while True:
            try:
                return method(self, *args, **kwargs)
            except DBAPIError as error:
                failed_at = time.monotonic() if failed_at is None else failed_at  # to notice can take long, too
                waited_s = time.monotonic() - failed_at
                if not is_away(error) or waited_s >= self.patience_s:
                    raise
                self.on_wait(
                    f"the database does not answer ({reason_of(error)}); waiting: {waited_s:.0f} s so far"
                )
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    return waiting


def is_away(error: DBAPIError) -> bool:
    """Whether the same statement may succeed later: the server is gone, starting or full of clients, or locked."""
    if isinstance(error.orig, sqlite3.Error):
        return getattr(error.orig, "sqlite_errorname", "").startswith("SQLITE_BUSY")
    if error.connection_invalidated:
        return True
    state = getattr(error.orig, "sqlstate", None)  # none where no server has answered
    if state is None:
        return isinstance(error, OperationalError | InterfaceError)
    return bool(state.startswith(AWAY))


def reason_of(error: DBAPIError) -> str:
    """The first line of what the database said, without passwords."""
    return first_line(error.orig or error)
