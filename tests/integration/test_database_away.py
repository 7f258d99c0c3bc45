"""A real PostgreSQL server that goes away under a study, and comes back."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.postgres import postgres_server, url_of
from vitsearch.messages import TrialFailure
from vitsearch.storage import StudyStore, open_engine
from vitsearch.storage.database import DatabaseError
from vitsearch.testing.storage import asked_trial, new_study

FAILURE = TrialFailure(trial=0, stage="train", failure="nan_loss", message="not a number")


@pytest.fixture
def server() -> Iterator[Any]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def store(server: Any) -> Iterator[StudyStore]:
    with new_study(url_of(server)) as store:
        yield store


def start_again(server: Any, after_s: float) -> threading.Thread:
    def start() -> None:
        time.sleep(after_s)
        for _ in range(20):  # a killed server's children hold its memory for a moment
            try:
                server.ensure_postgres_running()
            except Exception:  # noqa: BLE001
                time.sleep(0.5)
            else:
                return

    thread = threading.Thread(target=start)
    thread.start()
    return thread


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_write_waits_until_the_server_is_back(server: Any, store: StudyStore, how: str) -> None:
    notices: list[str] = []
    store.on_wait = notices.append
    store.add_trial(asked_trial(0))
    if how == "killed":
        os.kill(server.get_pid(), signal.SIGKILL)
    else:
        server.stop()
    starting = start_again(server, 2.0)
    try:
        store.add_trial(asked_trial(1))
        assert store.store_outcome(0, FAILURE, {})
        assert [(trial.number, trial.state) for trial in store.trials()] == [(0, "result"), (1, "asked")]
    finally:
        starting.join()
    assert notices
    assert all(notice.startswith("the database does not answer (") for notice in notices)


def test_patience_ends_with_what_the_database_says(server: Any, store: StudyStore) -> None:
    store.patience_s = 0.5
    server.stop()
    try:
        with pytest.raises(DatabaseError, match="connection"):
            store.trials()
    finally:
        start_again(server, 0.0).join()
    assert store.trials() == []


def test_a_new_study_is_not_made_where_no_server_answers(server: Any, store: StudyStore) -> None:
    from vitsearch.errors import StudyError

    server.stop()
    try:
        with pytest.raises(StudyError, match="cannot open the database"):
            open_engine(url_of(server))
    finally:
        start_again(server, 0.0).join()
