"""Trainer actors by name: started, replaced, and as many as there is room for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ray

from vitsearch.errors import StudyError
from workers.deaths import reason_of

PULSE_EVERY_S = 5.0
MAX_FAILED_STARTS = 5
RESTART_AFTER_S = 10.0  # a node that is going down takes new actors for a while, and them along
MOST_RESTART_AFTER_S = 300.0
STARTING_S = 60.0

log = logging.getLogger(__name__)


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
        idle_since: When it was started, or last given back.
        restart_at: When another is to take its place, as it died at its start.
        failed_starts: How many of its name have done so, one after the other.
        leaving: Whether its place is wanted by others: it goes at the end of an epoch.
    """

    actor: Any
    started: Any
    is_ready: bool = False
    task: Any = None
    trial: int | None = None
    report: Any = None
    asked_at: float = 0.0
    idle_since: float
    leaving: bool = False
    restart_at: float | None = None
    failed_starts: int = 0
    pulse: Any = None
    pulse_at: float = 0.0

    @property
    def has_place(self) -> bool:
        """Whether it is on a node; one that starts is believed to be for as long as that takes."""
        return self.is_ready or (self.restart_at is None and time.monotonic() - self.idle_since < STARTING_S)

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
        self._failed_rounds = 0
        self._failed_at = float("-inf")
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
            self.workers[name].failed_starts = worker.failed_starts

    def remove(self, name: str) -> None:
        """Kill a trainer for good."""
        ray.kill(self.workers.pop(name).actor)

    def settle(self) -> None:
        """Notice who has started since the last call, and who has died without work.

        Raises:
            StudyError: Trainers do nothing but die at their start, and none is there that works.
        """
        now = time.monotonic()
        reasons: list[str] = []
        for name, worker in list(self.workers.items()):
            if worker.restart_at is not None:
                if now > worker.restart_at:
                    self.replace(name)
            elif not worker.is_ready:
                reasons += self._await_start(name, worker)
            elif worker.task is None:
                self._feel_pulse(name, worker, now)
        if reasons and not self._some_work and now - self._failed_at > RESTART_AFTER_S:
            self._failed_at = now  # however many die together: their node may be the reason
            self._failed_rounds += 1
            if self._failed_rounds >= MAX_FAILED_STARTS:
                raise StudyError(
                    f"trainers die at their start, the last one because: {reasons[-1]}; mend that, and resume"
                )

    def starting(self) -> list[Any]:
        """References that arrive when a trainer has started."""
        return [worker.started for worker in self if not worker.is_ready and worker.restart_at is None]

    def close(self) -> None:
        """Kill all."""
        for name in list(self.workers):
            self.remove(name)

    def _add(self) -> None:
        number = next(n for n in range(len(self.workers) + 1) if f"w{n}" not in self.workers)
        self.workers[f"w{number}"] = self._new()

    def _new(self) -> Worker:
        actor = self._start()
        return Worker(actor=actor, started=actor.ping.remote(), idle_since=time.monotonic())

    @property
    def _some_work(self) -> bool:
        return any(worker.is_ready for worker in self)

    def _await_start(self, name: str, worker: Worker) -> list[str]:
        """Notice that it has started, or why it has not."""
        if not _has_arrived(worker.started):
            return []
        try:
            ray.get(worker.started)
        except ray.exceptions.RayError as error:
            reason, wait_s = reason_of(error), RESTART_AFTER_S
            if self._some_work:  # it is the fault of a node, which may last
                wait_s = min(RESTART_AFTER_S * 2.0 ** min(worker.failed_starts, 10), MOST_RESTART_AFTER_S)
                log.warning("trainer %s dies at its start: %s; another try in %.0f s", name, reason, wait_s)
            worker.failed_starts += 1
            worker.restart_at = time.monotonic() + wait_s
            return [reason]
        worker.is_ready, worker.failed_starts = True, 0
        worker.idle_since = worker.pulse_at = time.monotonic()
        self._failed_rounds = 0
        return []

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
