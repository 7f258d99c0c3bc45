"""What counts as a database that is away, and what a repeated write leaves."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.orm import Session

from vitsearch.messages import TrialFailure
from vitsearch.storage import StudyStore, database_url, patience
from vitsearch.testing.storage import asked_trial, new_study

FAILURE = TrialFailure(trial=0, stage="train", failure="nan_loss", message="not a number")


class ServerError(Exception):
    def __init__(self, sqlstate: str | None) -> None:
        super().__init__("said the server\nand more")
        self.sqlstate = sqlstate


def sqlite_error(name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(name)
    error.sqlite_errorname = name
    return error


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StudyStore]:
    with new_study(database_url(tmp_path)) as store:
        yield store


@pytest.mark.parametrize(
    ("kind", "origin", "away"),
    [
        (OperationalError, ServerError(None), True),  # nobody answered
        (InterfaceError, ServerError(None), True),
        (OperationalError, ServerError("57P01"), True),  # it shuts down
        (OperationalError, ServerError("57P03"), True),  # it starts
        (OperationalError, ServerError("08006"), True),
        (OperationalError, ServerError("53300"), True),  # too many clients
        (OperationalError, ServerError("53100"), False),  # its disk is full
        (OperationalError, ServerError("57014"), False),  # a person cancelled
        (IntegrityError, ServerError(None), False),
        (OperationalError, sqlite_error("SQLITE_BUSY"), True),
        (OperationalError, sqlite_error("SQLITE_FULL"), False),
        (OperationalError, sqlite_error("SQLITE_IOERR_WRITE"), False),
    ],
)
def test_what_waiting_can_mend(kind: type[DBAPIError], origin: BaseException, away: bool) -> None:
    assert patience.is_away(kind("SELECT 1", {}, origin)) is away


def test_a_lost_connection_is_always_worth_another() -> None:
    assert patience.is_away(DBAPIError("SELECT 1", {}, ServerError("XX000"), connection_invalidated=True))


def commits_and_says_nothing(store: StudyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next transaction commits, and the connection breaks before anyone hears of it."""
    whole = store._writing

    @contextmanager
    def broken() -> Iterator[Session]:
        with whole() as session:
            yield session
        monkeypatch.setattr(store, "_writing", whole)
        raise OperationalError("COMMIT", {}, ServerError(None), connection_invalidated=True)

    monkeypatch.setattr(store, "_writing", broken)


def test_a_commit_that_nobody_heard_of_counts_once(store: StudyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.0)
    commits_and_says_nothing(store, monkeypatch)
    store.add_trial(asked_trial(0))
    commits_and_says_nothing(store, monkeypatch)
    assert store.store_outcome(0, FAILURE, {}), "it is the first outcome, though the second attempt finds it there"
    (trial,) = store.trials()
    assert trial.outcome == FAILURE
    commits_and_says_nothing(store, monkeypatch)
    store.release("finished")
    assert store.study().state == "finished"


def test_pauses_grow_and_the_notice_hides_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    notices: list[str] = []
    monkeypatch.setattr(patience.time, "sleep", pauses.append)
    attempts: list[Any] = []

    class Away:
        patience_s = 600.0

        def __init__(self) -> None:
            self.on_wait = notices.append

        @patience.patiently
        def ask(self) -> str:
            attempts.append(None)
            if len(attempts) < 9:
                origin = RuntimeError("connection to postgresql://me:s3cret@host/db failed\nis it running?")
                raise OperationalError("SELECT 1", {}, origin)
            return "there"

    assert Away().ask() == "there"
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert notices[0] == (
        "the database does not answer (connection to postgresql://***@host/db failed); waiting: 0 s so far"
    )


def test_a_failure_that_took_longer_than_all_patience_is_tried_again(
    store: StudyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that vanishes may be noticed only after minutes; by then its successor may be there."""
    now = [0.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.0)
    whole = store._writing

    @contextmanager
    def gone() -> Iterator[Session]:
        monkeypatch.setattr(store, "_writing", whole)
        now[0] += 10 * store.patience_s
        raise OperationalError("UPDATE", {}, ServerError(None))
        yield

    store.acquire()
    monkeypatch.setattr(store, "_writing", gone)
    store.add_trial(asked_trial(0))
    assert len(store.trials()) == 1
