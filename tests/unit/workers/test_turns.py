"""One measures or many train, in whichever processes."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from workers import turns
from workers.turns import AtWork, machine_to_itself

HOLDER = """
import pathlib, time
from workers import turns
turns.FOLDER = pathlib.Path({folder!r})
with turns.{what}():
    print("held", flush=True)
    time.sleep({seconds})
"""


@pytest.fixture(autouse=True)
def machine_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "FOLDER", tmp_path / "turns")


def holder(what: str, folder: Path, seconds: float) -> subprocess.Popen[str]:
    code = HOLDER.format(what=what, folder=str(folder / "turns"), seconds=seconds)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


class Training(threading.Thread):
    """Counts batches as a training loop would."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.at_work, self.batches, self.done = AtWork(), 0, False
        self.start()

    def run(self) -> None:
        with self.at_work:
            while not self.done:
                self.batches += 1
                time.sleep(0.001)
                self.at_work.give_way()

    def end(self) -> None:
        self.done = True
        self.join(5)
        assert not self.is_alive()


def test_nothing_trains_while_something_is_measured_however_often() -> None:
    training = [Training(), Training()]
    for _ in range(30):
        with machine_to_itself() as alone:
            assert alone
            before = [one.batches for one in training]
            time.sleep(0.005)
            assert [one.batches for one in training] == before
    with machine_to_itself():
        time.sleep(0.1)
        assert all(one.at_work.rests for one in training)
    time.sleep(0.2)
    after = [one.batches for one in training]
    assert all(now > then for now, then in zip(after, before, strict=True))
    assert not any(one.at_work.rests for one in training)
    for one in training:
        one.end()


def test_training_that_begins_beside_a_measurement_waits() -> None:
    with machine_to_itself():
        training = Training()
        time.sleep(0.1)
        assert training.batches == 0
        assert training.at_work.rests
    time.sleep(0.2)
    assert training.batches > 0
    training.end()


def test_who_insists_is_known_to_the_next_who_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which follows so closely that those who wait in vain never see the machine free."""
    monkeypatch.setattr(turns, "MOST_REST_S", 0.05)
    monkeypatch.setattr(turns, "REST_TIMEOUT_S", 0.0)
    at_work = AtWork()
    with machine_to_itself() as alone:
        assert alone
        at_work.__enter__()
    with machine_to_itself() as alone:
        assert not alone
        at_work.give_way()
    at_work.give_way()  # it has seen the machine free
    with machine_to_itself() as alone:
        assert not alone, "it computes"
    at_work.__exit__()
    with machine_to_itself() as alone:
        assert alone


def test_what_is_not_at_work_disturbs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "REST_TIMEOUT_S", 0.0)
    at_work = AtWork()
    with at_work:
        pass
    with machine_to_itself() as alone:
        assert alone


def test_what_does_not_come_to_rest_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another process: a study or a user of its own."""
    monkeypatch.setattr(turns, "REST_TIMEOUT_S", 0.1)
    with holder("AtWork", tmp_path, 600) as process:
        with machine_to_itself() as alone:
            assert not alone
        process.kill()


def test_a_machine_that_is_never_given_back_is_used_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "MOST_REST_S", 0.1)
    with machine_to_itself():
        training = Training()
        time.sleep(0.4)
        assert training.batches > 0
        training.end()


def test_patience_with_who_never_gives_back_the_machine_is_lost_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each batch and each trial waited half an hour of its own."""
    monkeypatch.setattr(turns, "MOST_REST_S", 0.5)
    with flock_of_another(tmp_path, turns.MEASURING):
        at_work = AtWork()
        started = time.monotonic()
        for _ in range(3):
            with at_work:
                for _ in range(10):
                    at_work.give_way()
        assert time.monotonic() - started < 1.0
        assert not at_work.rests
        monkeypatch.setattr(turns, "REST_TIMEOUT_S", 0.0)
        with at_work:
            assert not turns._take_within(turns._open(turns.INSISTING), 0.0), "a measurement is not alone"
    with at_work:
        at_work.give_way()
        resting = threading.Thread(target=at_work.give_way)
        with machine_to_itself():
            resting.start()
            time.sleep(0.1)
            assert at_work.rests, "the machine has been seen free since"
        resting.join(5)


@contextmanager
def flock_of_another(folder: Path, name: str) -> Iterator[None]:
    AtWork()  # makes the files
    file = os.open(folder / "turns" / name, os.O_RDONLY)
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(file)


def test_a_second_measurement_waits_for_the_first(tmp_path: Path) -> None:
    with holder("machine_to_itself", tmp_path, 1.0) as process:
        with machine_to_itself():
            waited_for = process.wait(60)
        assert waited_for == 0


def test_a_second_measurement_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "TURN_TIMEOUT_S", 0.1)
    with holder("machine_to_itself", tmp_path, 600) as process:
        with pytest.raises(TimeoutError, match="others measure"), machine_to_itself():
            pass
        process.kill()


@pytest.mark.parametrize("what", ["AtWork", "machine_to_itself"])
def test_a_killed_process_holds_nothing(what: str, tmp_path: Path) -> None:
    with holder(what, tmp_path, 600) as process:
        os.kill(process.pid, signal.SIGKILL)
        started = time.monotonic()
        with machine_to_itself() as alone:
            assert alone
            assert time.monotonic() - started < 30


def test_another_users_lock_files_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "turns").mkdir()
    for name in (turns.MEASURING, turns.COMPUTING):
        (tmp_path / "turns" / name).touch(mode=0o444)
    with machine_to_itself() as alone:
        assert alone
    with AtWork():
        pass


def test_every_user_can_take_turns(tmp_path: Path) -> None:
    AtWork()
    assert stat.S_IMODE((tmp_path / "turns").stat().st_mode) == 0o1777
    assert stat.S_IMODE((tmp_path / "turns" / turns.MEASURING).stat().st_mode) == 0o644
