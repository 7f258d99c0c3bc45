"""What a new study is made of, and what a search leaves behind, however it ends."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.orm import Session

import vitsearch.tracking
import workers
from tests.unit.report import factory
from tests.unit.train.factory import image_data
from vitsearch.cli.run_folder import new_study, open_study
from vitsearch.cli.session import Display, search
from vitsearch.cli.stopping import Stopping
from vitsearch.errors import StudyError, StudyLockedError
from vitsearch.messages import TrialRequest, TrialResult
from vitsearch.report import files
from vitsearch.search import InlineExecutor
from vitsearch.storage import StudyStore
from vitsearch.storage.tables import StudyTable
from vitsearch.testing import noop_profile, noop_result
from vitsearch.tracking import Tracker, tracker

SILENT = Display(on_step=lambda _: None, on_change=lambda _: None, on_stop=lambda _: None)


class FakeExecutor(InlineExecutor):
    run: Callable[[TrialRequest], TrialResult] = staticmethod(noop_result)

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__(type(self).run, noop_profile)

    def wait_until_ready(self, on_step: Callable[[str], None]) -> None:
        pass


class FakeTracker:
    """Notes who owns the study when it is closed."""

    closed: list[tuple[bool, bool]]

    def __init__(self, store: StudyStore, *_: object) -> None:
        self.store, self.page = store, ""

    def start(self) -> None:
        self.closed.clear()

    def close(self, timeout_s: float, *, interrupted: bool) -> bool:
        self.closed.append((bool(row(self.store).owner), interrupted))
        return True


def row(store: StudyStore) -> StudyTable:
    with Session(store._engine) as session:
        return session.get_one(StudyTable, store.study_id)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, bool]]:
    @contextmanager
    def no_ray(**_: object) -> Iterator[None]:
        yield

    found: list[tuple[bool, bool]] = []
    monkeypatch.setattr(FakeTracker, "closed", found, raising=False)
    monkeypatch.setattr(vitsearch.tracking, "Tracker", FakeTracker)
    monkeypatch.setattr(workers, "RayExecutor", FakeExecutor)
    monkeypatch.setattr(workers, "SharedData", SimpleNamespace(put=lambda data: data))
    monkeypatch.setattr(workers, "local_ray", no_ray)
    return found


def ready(tmp_path: Path, **changes: Any) -> StudyStore:
    job = factory.job(
        search={"sampler": "random", "trials": 3}, train={"epochs": 1, "autocast": "fp32"}, **changes
    )
    return new_study(job, tmp_path / "run")


def test_the_lease_is_given_back_after_mlflow_has_been_told(
    tmp_path: Path, closed: list[tuple[bool, bool]]
) -> None:
    store = ready(tmp_path)
    with Stopping() as stopping:
        ended = search(store, tmp_path / "run", image_data(), SILENT, stopping)
    assert ended.reason == "trial budget used"
    assert closed == [(True, False)], "the next driver must not deliver beside this one"
    assert (row(store).owner, row(store).state) == ("", "finished")


def test_a_picture_that_cannot_be_drawn_keeps_no_study_from_its_end(
    tmp_path: Path, closed: list[tuple[bool, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no such font")

    monkeypatch.setattr(files, "save_front_png", fail)
    store = ready(tmp_path)
    with Stopping() as stopping:
        ended = search(store, tmp_path / "run", image_data(), SILENT, stopping)
    assert "pareto.png cannot be drawn (no such font)" in ended.problems
    assert (tmp_path / "run" / "trials.csv").is_file()
    assert closed == [(True, False)]
    assert (row(store).owner, row(store).state) == ("", "finished")


def test_a_disk_that_is_full_for_the_reports_ends_in_an_error_and_gives_the_study_back(
    tmp_path: Path, closed: list[tuple[bool, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "save_front_png", fail)
    store = ready(tmp_path)
    with pytest.raises(OSError, match="No space left"), Stopping() as stopping:
        search(store, tmp_path / "run", image_data(), SILENT, stopping)
    assert closed == [(True, False)]
    assert (row(store).owner, row(store).state) == ("", "finished")


@pytest.mark.parametrize("error", [StudyError("the disk is full"), KeyboardInterrupt(), OSError("no such device")])
def test_an_error_or_an_impatient_person_leaves_an_interrupted_study_that_nobody_drives(
    error: BaseException, tmp_path: Path, closed: list[tuple[bool, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(request: TrialRequest) -> TrialResult:
        if request.trial == 1:
            raise error
        return noop_result(request)

    monkeypatch.setattr(FakeExecutor, "run", staticmethod(run))
    store = ready(tmp_path)
    with pytest.raises(type(error)), Stopping() as stopping:
        search(store, tmp_path / "run", image_data(), SILENT, stopping)
    assert closed == [(True, True)]
    assert (row(store).owner, row(store).state) == ("", "interrupted")


def test_a_driver_whose_study_another_has_taken_tells_mlflow_nothing(
    tmp_path: Path, closed: list[tuple[bool, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ready(tmp_path)
    successor = open_study(tmp_path / "run")
    told: list[str] = []

    def run(request: TrialRequest) -> TrialResult:
        if request.trial == 1:
            successor.acquire()
            successor.enqueue("front", {"members": [0]})
        return noop_result(request)

    monkeypatch.setattr(FakeExecutor, "run", staticmethod(run))
    monkeypatch.setattr(vitsearch.tracking, "Tracker", Tracker)
    monkeypatch.setattr(tracker, "POLL_S", 600.0)  # until it is closed
    monkeypatch.setattr(Tracker, "_connect", lambda _: (None, "1"))
    monkeypatch.setattr(Tracker, "_mlflow", lambda _: told.append("something"))
    with pytest.raises(StudyLockedError), Stopping() as stopping:
        search(store, tmp_path / "run", image_data(), SILENT, stopping)
    assert told == []
    assert successor.undelivered()
    assert row(store).owner
    successor.release("interrupted")


def test_what_is_refused_before_it_begins_stays_what_it_was(
    tmp_path: Path, closed: list[tuple[bool, bool]]
) -> None:
    store = ready(tmp_path)
    with Stopping() as stopping:
        search(store, tmp_path / "run", image_data(), SILENT, stopping)
    with pytest.raises(StudyError, match="images have changed"), Stopping() as stopping:
        search(store, tmp_path / "run", image_data(45), SILENT, stopping)
    assert (row(store).owner, row(store).state) == ("", "finished")


def test_the_first_error_is_told_where_the_database_is_gone_too(
    tmp_path: Path, closed: list[tuple[bool, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ready(tmp_path)

    def run(request: TrialRequest) -> TrialResult:
        monkeypatch.setattr(store, "release", fail)
        raise StudyError("first")

    def fail(_: str) -> None:
        raise StudyError("second")

    monkeypatch.setattr(FakeExecutor, "run", staticmethod(run))
    with pytest.raises(StudyError, match="first"), Stopping() as stopping:
        search(store, tmp_path / "run", image_data(), SILENT, stopping)
