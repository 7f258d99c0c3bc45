"""Trainers that die at their start, with actors that answer at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import ray

from vitsearch.errors import StudyError
from workers import pool
from workers.pool import Pool


class Ray:
    """Actors that live or die as ``lives`` says when they are started."""

    exceptions = ray.exceptions

    def __init__(self) -> None:
        self.lives, self.started = True, 0

    def start(self) -> Any:
        self.started += 1
        lives = self.lives
        return SimpleNamespace(ping=SimpleNamespace(remote=lambda: lives))

    def get(self, lives: bool) -> None:
        if not lives:
            raise ray.exceptions.RayActorError

    def kill(self, actor: Any) -> None:
        pass


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Ray:
    fake = Ray()
    monkeypatch.setattr(pool, "ray", fake)
    monkeypatch.setattr(pool, "_has_arrived", lambda _: True)
    monkeypatch.setattr(pool, "time", SimpleNamespace(monotonic=lambda: now[0]))
    now[0] = 1000.0
    return fake


now = [1000.0]


def test_a_node_that_takes_many_along_is_one_failure_and_they_start_again_after_a_while(fake: Ray) -> None:
    fake.lives = False
    trainers = Pool(fake.start, 16)
    trainers.settle()
    trainers.settle()
    assert fake.started == 16, "not at once: the node may still be going down"
    assert not trainers.starting()
    assert not any(worker.has_place for worker in trainers)
    fake.lives = True
    now[0] += pool.RESTART_AFTER_S + 1
    trainers.settle()
    trainers.settle()
    assert fake.started == 32
    assert all(worker.is_ready for worker in trainers)


def test_trainers_that_die_round_after_round_end_the_search(fake: Ray) -> None:
    fake.lives = False
    trainers = Pool(fake.start, 2)
    for _ in range(2 * pool.MAX_FAILED_STARTS - 2):  # each is noticed in one round and started again in the next
        trainers.settle()
        now[0] += pool.RESTART_AFTER_S + 1
    with pytest.raises(StudyError, match="trainers die at their start"):
        trainers.settle()
    assert fake.started == 2 * pool.MAX_FAILED_STARTS


def test_one_bad_node_does_not_end_the_search_while_others_work(
    fake: Ray, caplog: pytest.LogCaptureFixture
) -> None:
    trainers = Pool(fake.start, 1)
    trainers.settle()
    fake.lives = False
    trainers.resize(2)
    for _ in range(600):
        trainers.settle()
        now[0] += 5
    assert trainers.workers["w0"].is_ready
    assert 3000 / pool.MOST_RESTART_AFTER_S < fake.started < 20, "it is tried more and more seldom"
    assert "trainer w1 dies at its start" in caplog.text
    fake.lives = True
    now[0] += pool.MOST_RESTART_AFTER_S + 1
    trainers.settle()
    trainers.settle()
    assert all(worker.is_ready for worker in trainers)
    fake.lives = False
    trainers.replace("w1")
    trainers.settle()
    now[0] += pool.RESTART_AFTER_S + 1
    before = fake.started
    trainers.settle()
    assert fake.started == before + 1, "what is past is forgotten"


def test_trainers_of_a_bad_node_that_die_one_after_the_other_are_one_failure(fake: Ray) -> None:
    """Those of other nodes need longer to start than these to die."""
    fake.lives = False
    trainers = Pool(fake.start, 0)
    for size in range(1, 3 * pool.MAX_FAILED_STARTS):
        trainers.resize(size)
        trainers.settle()
        now[0] += 0.1
    fake.lives = True
    trainers.resize(trainers.num_staying + 1)
    trainers.settle()
    assert sum(worker.is_ready for worker in trainers) == 1


def test_one_that_waits_for_room_has_no_place_after_a_while(fake: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_has_arrived", lambda _: False)
    trainers = Pool(fake.start, 1)
    trainers.settle()
    assert [worker.has_place for worker in trainers] == [True]
    now[0] += pool.STARTING_S + 1
    assert [worker.has_place for worker in trainers] == [False]
