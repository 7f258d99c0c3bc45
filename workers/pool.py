"""Trainer actors by name: started, replaced, and as many as there is room for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import ray

from vitsearch.errors import StudyError
from workers.resources import reason_of

PULSE_EVERY_S = 5.0
MAX_FAILED_STARTS = 5


@dataclass(kw_only=True)
class Worker:
    """A trainer actor and what it is doing.

    Attributes:
        actor: Its handle.
        started: Reference of what it answers once it holds the data.
        is_ready: Whether it has; not while the actor waits for room or starts.
        task: Reference of the running trial.
        trial: Its number.
        report: Reference of an unanswered question for progress.
        asked_at: When progress was last asked for.
        idle_since: When it was last given back.
        leaving: Whether its place is wanted by others: it goes at the end of an epoch.
    """

    actor: Any
    started: Any
    is_ready: bool = False
    task: Any = None
    trial: int | None = None
    report: Any = None
    asked_at: float = 0.0
    idle_since: float = field(default_factory=time.monotonic)
    leaving: bool = False
    pulse: Any = None
    pulse_at: float = field(default_factory=time.monotonic)

    @property
    def is_idle(self) -> bool:
        """Whether it could take a trial."""
        return self.is_ready and self.task is None and not self.leaving


class Pool:
    """A number of trainers that can change.

    Args:
        start: Starts an actor; returns its handle at once, whether there is room for it yet or not.
        size: How many.
    """

    def __init__(self, start: Callable[[], Any], size: int) -> None:
        self._start = start
        self._failed_starts = 0
        self.workers: dict[str, Worker] = {}
        self.resize(size)

    def __iter__(self) -> Iterator[Worker]:
        return iter(list(self.workers.values()))

    @property
    def num_staying(self) -> int:
        """Trainers that are there or on their way, without those that leave."""
        return sum(not worker.leaving for worker in self)

    def resize(self, size: int) -> None:
        """Start trainers, or let some go: first those that only wait for room, then idle ones, then busy ones."""
        for worker in sorted(self, key=_worth, reverse=True):
            if worker.leaving and self.num_staying < size:
                worker.leaving = False
        while self.num_staying < size:
            self._add()
        surplus = self.num_staying - size
        for name, worker in sorted(self.workers.items(), key=lambda item: _worth(item[1])):
            if surplus > 0 and not worker.leaving:
                surplus -= 1
                if worker.task is None:
                    self.remove(name)
                else:
                    worker.leaving = True

    def replace(self, name: str) -> None:
        """Kill a trainer and start another under its name, unless its place is wanted by others."""
        worker = self.workers[name]
        ray.kill(worker.actor)
        if worker.leaving:
            del self.workers[name]
        else:
            self.workers[name] = self._new()

    def remove(self, name: str) -> None:
        """Kill a trainer for good."""
        ray.kill(self.workers.pop(name).actor)

    def settle(self) -> None:
        """Notice who has started since the last call, and who has died without work.

        Raises:
            StudyError: Trainers do nothing but die at their start.
        """
        now = time.monotonic()
        for name, worker in list(self.workers.items()):
            if not worker.is_ready:
                self._await_start(name, worker)
            elif worker.task is None:
                self._feel_pulse(name, worker, now)

    def starting(self) -> list[Any]:
        """References that arrive when a trainer has started."""
        return [worker.started for worker in self if not worker.is_ready]

    def close(self) -> None:
        """Kill all."""
        for name in list(self.workers):
            self.remove(name)

    def _add(self) -> None:
        number = next(n for n in range(len(self.workers) + 1) if f"w{n}" not in self.workers)
        self.workers[f"w{number}"] = self._new()

    def _new(self) -> Worker:
        actor = self._start()
        return Worker(actor=actor, started=actor.ping.remote())

    def _await_start(self, name: str, worker: Worker) -> None:
        if not _has_arrived(worker.started):
            return
        try:
            ray.get(worker.started)
            worker.is_ready = True
            worker.idle_since = worker.pulse_at = time.monotonic()
            self._failed_starts = 0
        except ray.exceptions.RayError as error:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise StudyError(
                    f"trainers die at their start, the last one because: {reason_of(error)}; mend that, and resume"
                ) from error
            self.replace(name)

    def _feel_pulse(self, name: str, worker: Worker, now: float) -> None:
        """Replace an idle trainer that has died, before a trial is given to it and counts it as an attempt."""
        if worker.pulse is None:
            if now - worker.pulse_at > PULSE_EVERY_S:
                worker.pulse = worker.actor.ping.remote()
        elif _has_arrived(worker.pulse):
            try:
                ray.get(worker.pulse)
            except ray.exceptions.RayError:
                self.replace(name)
            else:
                worker.pulse, worker.pulse_at = None, now


def _worth(worker: Worker) -> tuple[bool, bool]:
    """Order in which trainers are let go."""
    return worker.task is not None, worker.is_ready


def _has_arrived(reference: Any) -> bool:
    return bool(ray.wait([reference], timeout=0)[0])
