import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.report import factory
from vitsearch.storage import StudyStore
from vitsearch.tracking import Tracker, tracker


class FakeView:
    """Notes what it is told; fails as often as asked."""

    def __init__(self, failures: int = 0) -> None:
        self.calls: list[Any] = []
        self.failures = failures

    def sync(self, ever: set[int]) -> None:
        self._maybe_fail()
        self.calls.append(sorted(ever))

    def finish(self) -> None:
        self._maybe_fail()
        self.calls.append("finished")

    def interrupt(self) -> None:
        self.calls.append("interrupted")

    def _maybe_fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("no route to http://user:geheim@host")


class FakeTracker(Tracker):
    def __init__(self, store: StudyStore, view: FakeView) -> None:
        super().__init__(store, Path("unused"), "http://user:geheim@host", None)
        self.fake = view

    def _mlflow(self) -> Any:
        self._view = self.fake  # type: ignore[assignment]
        return self.fake

    def _connect(self) -> Any:
        return None, "1"


@pytest.fixture
def store(tmp_path: Path) -> StudyStore:
    return factory.new_store(tmp_path)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker, "POLL_S", 0.02)
    monkeypatch.setattr(tracker, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(tracker, "LONGEST_PAUSE_S", 0.1)
    monkeypatch.setattr(tracker, "CLOSING_PAUSE_S", 0.1)


def wait_until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_messages_arrive_in_order_and_fronts_in_a_row_as_one(store: StudyStore):
    for members in ([0], [0, 1], [1, 2]):
        store.enqueue("front", {"members": members})
    store.enqueue("finished", {})
    store.enqueue("front", {"members": [5]})
    store.enqueue("finished", {})
    one = FakeTracker(store, FakeView())
    one.start()
    assert one.close(10)
    assert one.fake.calls == [[0, 1, 2], "finished", [5], "finished"]
    assert store.undelivered() == []


def test_messages_are_noticed_while_it_runs(store: StudyStore):
    one = FakeTracker(store, FakeView())
    one.start()
    store.enqueue("front", {"members": [3]})
    wait_until(lambda: one.fake.calls == [[3]])
    store.enqueue("front", {"members": [4]})
    wait_until(lambda: one.fake.calls == [[3], [4]])
    assert one.close(10)


def test_errors_are_tried_again_and_logged_once_without_passwords(
    store: StudyStore, caplog: pytest.LogCaptureFixture
):
    store.enqueue("front", {"members": [3]})
    one = FakeTracker(store, FakeView(failures=5))
    with caplog.at_level(logging.WARNING):
        one.start()
        wait_until(lambda: bool(one.fake.calls))
        assert one.close(10)
    assert one.fake.calls == [[3]]
    assert len(caplog.records) == 1
    assert "geheim" not in caplog.text
    assert "no route" in caplog.text


def test_what_cannot_be_delivered_stays_for_the_next_driver(store: StudyStore):
    store.enqueue("front", {"members": [3]})
    one = FakeTracker(store, FakeView(failures=10_000))
    one.start()
    began = time.monotonic()
    assert not one.close(0.3)
    assert time.monotonic() - began < 5
    wait_until(lambda: not one._thread.is_alive())
    two = FakeTracker(store, FakeView())
    two.start()
    assert two.close(10)
    assert two.fake.calls == [[3]]


@pytest.mark.parametrize("failures", [1, 3], ids=["the server is back", "it comes back while the search ends"])
def test_closing_ends_a_long_pause(failures: int, store: StudyStore, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tracker, "FIRST_PAUSE_S", 600.0)
    monkeypatch.setattr(tracker, "LONGEST_PAUSE_S", 600.0)
    store.enqueue("front", {"members": [3]})
    one = FakeTracker(store, FakeView(failures=failures))
    one.start()
    wait_until(lambda: one.fake.failures == failures - 1)
    assert one.close(10)
    assert one.fake.calls == [[3]]


def test_a_broken_database_does_not_reach_the_search(store: StudyStore, monkeypatch: pytest.MonkeyPatch):
    def broken(limit: int = 50) -> None:
        raise RuntimeError("the database is gone")

    monkeypatch.setattr(store, "undelivered", broken)
    one = FakeTracker(store, FakeView())
    one.start()
    assert not one.close(0.2)


def test_an_unknown_message_does_not_block(store: StudyStore, caplog: pytest.LogCaptureFixture):
    store.enqueue("fanfare", {})
    store.enqueue("finished", {})
    one = FakeTracker(store, FakeView())
    one.start()
    assert one.close(10)
    assert one.fake.calls == ["finished"]
    assert "fanfare" in caplog.text


@pytest.mark.parametrize("told", [True, False])
def test_an_interrupted_study_is_told_when_mlflow_knows_it(store: StudyStore, told: bool):
    if told:
        store.enqueue("front", {"members": [3]})
    one = FakeTracker(store, FakeView())
    one.start()
    assert one.close(10, interrupted=True)
    assert one.fake.calls == ([[3], "interrupted"] if told else [])


def test_nothing_is_delivered_once_another_driver_has_the_study(
    store: StudyStore, caplog: pytest.LogCaptureFixture
):
    """One that was frozen for longer than its lease wakes up beside its successor, whose messages these are."""
    one = FakeTracker(store, FakeView())
    one.start()
    store.enqueue("front", {"members": [3]})
    wait_until(lambda: one.fake.calls == [[3]])
    successor = StudyStore(store._engine, store.study_id)
    successor.acquire()
    successor.enqueue("front", {"members": [4]})
    wait_until(lambda: not one._thread.is_alive())
    assert not one.close(10, interrupted=True)
    assert one.fake.calls == [[3]]
    assert len(successor.undelivered()) == 1
    assert not caplog.records
    successor.release("interrupted")


def test_mlflow_is_not_told_of_an_interruption_by_a_driver_without_the_study(store: StudyStore):
    store.enqueue("front", {"members": [3]})
    one = FakeTracker(store, FakeView())
    one.start()
    wait_until(lambda: not store.undelivered())
    successor = StudyStore(store._engine, store.study_id)
    successor.acquire()
    assert one.close(10, interrupted=True)
    assert one.fake.calls == [[3]]
    successor.release("interrupted")


def test_closing_without_a_start(store: StudyStore):
    assert FakeTracker(store, FakeView()).close(1)
    store.enqueue("finished", {})
    assert not FakeTracker(store, FakeView()).close(1)


def test_it_is_a_daemon(store: StudyStore):
    one = FakeTracker(store, FakeView())
    one.start()
    assert [t.daemon for t in threading.enumerate() if t.name == "vitsearch-mlflow"] == [True]
    assert one.close(10)
