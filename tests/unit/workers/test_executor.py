"""What workers answer, and what an executor without any tells."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import ray

import workers.executor
from tests.unit.compress.factory import candidate
from vitsearch.config import TrainSpec
from vitsearch.errors import StudyError, WorkerError
from vitsearch.messages import TrialFailure
from vitsearch.search import Event, ProfileDone, TrialDone, WorkerLost
from workers import RayExecutor, SharedData
from workers.executor import MOST_LOSSES, _parse_outcome
from workers.pool import Worker


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"kind": "other"}', '{"kind": "result", "trial": 1}', "\x00"])
def test_what_is_no_outcome_is_the_worker_s_fault(text: str):
    with pytest.raises(WorkerError, match="no outcome of a trial"):
        _parse_outcome(text)


class Target:
    """Says one thing once, or raises it each time."""

    def __init__(self, says: ProfileDone | StudyError) -> None:
        self.says: ProfileDone | StudyError | None = says

    def pending(self) -> list[Any]:
        return []

    def advance(self, desk: object) -> ProfileDone | None:
        if isinstance(self.says, StudyError):
            raise self.says
        said, self.says = self.says, None
        return said


DONE = ProfileDone(trial=3, target="desk", profile=None)


def executor_of(*says: ProfileDone | StudyError) -> RayExecutor:
    executor = RayExecutor(SimpleNamespace(), workers=0, threads=1)  # type: ignore[arg-type]
    executor._targets = {str(number): Target(one) for number, one in enumerate(says)}  # type: ignore[misc]
    return executor


def test_what_else_has_happened_is_told_before_a_measurement_ends_the_search() -> None:
    executor = executor_of(DONE, StudyError("the disk is full"), DONE)
    assert executor.poll(0.0) == [DONE, DONE]
    for _ in range(2):
        with pytest.raises(StudyError, match="the disk is full"):
            executor.poll(0.0)
    with pytest.raises(StudyError, match="the disk is full"):
        executor_of(StudyError("the disk is full")).poll(0.0)


def test_what_else_has_happened_is_told_before_trainers_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    def settle() -> None:
        raise StudyError("trainers die at their start")

    executor = executor_of(DONE)
    monkeypatch.setattr(executor._pool, "settle", settle)
    assert executor.idle_workers() == []
    assert executor.poll(0.0) == [DONE]
    with pytest.raises(StudyError, match="trainers die"):
        executor.poll(0.0)


class Trainers:
    """A pool of one that is ready at once, and whose every answer is an error."""

    def __init__(self, error: Exception) -> None:
        self.replaced = 0
        ask = SimpleNamespace(remote=lambda *_: error)
        actor = SimpleNamespace(teach=ask, fastest_autocast=ask, learn_from=ask)
        self.workers = {"w0": Worker(actor=actor, started=None, is_ready=True, idle_since=0.0)}

    def __iter__(self) -> Any:
        return iter(self.workers.values())

    def settle(self) -> None:
        pass

    def starting(self) -> list[Any]:
        return []

    def replace(self, name: str) -> None:
        self.replaced += 1
        self.workers[name].task = None


class Ray:
    """Raises what is fetched."""

    exceptions = ray.exceptions

    def wait(self, references: list[Any], **_: object) -> tuple[list[Any], list[Any]]:
        return references, []

    def get(self, reference: Exception) -> Any:
        raise reference


@pytest.mark.parametrize(
    "error",
    [
        ray.exceptions.RayActorError(),
        ray.exceptions.RayTaskError("teach", "Traceback\nOSError: no such store", OSError("no such store")),
        ray.exceptions.OutOfMemoryError("1 worker(s) were killed"),
        ray.exceptions.ObjectLostError("00", "", ""),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize(
    "ask",
    [
        lambda executor: executor.ask_teacher(TrainSpec(epochs=1), 0),
        lambda executor: executor.fastest_autocast(candidate().architecture, 8),
    ],
    ids=["teacher", "autocast"],
)
def test_trainers_that_fail_before_the_first_trial_are_replaced_so_many_times(
    ask: Callable[[RayExecutor], Any], error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = executor_of()
    executor._pool = Trainers(error)  # type: ignore[assignment]
    monkeypatch.setattr(workers.executor, "ray", Ray())
    with pytest.raises(StudyError, match="trainers fail while the search is prepared, the last one because: "):
        ask(executor)
    assert executor._pool.replaced == MOST_LOSSES  # type: ignore[attr-defined]


def text_of_a_kill(pid: int) -> str:
    """As Ray tells of one actor that it killed beside a larger and a smaller process."""
    killed = f"(Actor(00aa): job ID=01, pid={pid}, actual memory used=2.00GB, worker ID=02)"
    return f"killed, as the node runs low on memory\n{killed}\n7\t2.00\tray::A\n8\t1.00\tray::B\n"


@pytest.mark.parametrize(
    ("pid", "event"),
    [
        (
            7,
            TrialDone(
                worker="w0",
                outcome=TrialFailure(
                    trial=3,
                    stage="worker",
                    failure="out_of_memory",
                    message="killed, as the node runs low on memory",
                ),
            ),
        ),
        (8, WorkerLost(worker="w0", trial=3, reason="killed, as the node runs low on memory")),
    ],
    ids=["its own", "another's"],
)
def test_a_trial_that_takes_all_memory_has_failed_and_is_not_to_be_tried_again(
    pid: int, event: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = ray.exceptions.OutOfMemoryError(text_of_a_kill(pid))
    trainers = Trainers(error)
    worker = trainers.workers["w0"]
    worker.actor._actor_id = SimpleNamespace(hex=lambda: "00aa")
    worker.task, worker.trial, worker.asked_at = error, 3, float("inf")
    executor = executor_of()
    executor._pool = trainers  # type: ignore[assignment]
    monkeypatch.setattr(workers.executor, "ray", Ray())
    assert executor.poll(0.0) == [event]
    assert trainers.replaced == 1


def test_teachers_answers_are_shared_though_a_trainer_has_died(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of memory, which is no death of an actor to Ray's classes; who takes its place is told from the start."""
    trainers = Trainers(ray.exceptions.OutOfMemoryError("1 worker(s) were killed"))
    executor = executor_of()
    executor._pool = trainers  # type: ignore[assignment]
    executor._data = SharedData(images_ref=None, labels_ref=None, meta={})
    monkeypatch.setattr(workers.executor, "ray", Ray())
    executor.share_answers([])
    assert executor._data.answers == ()
