"""Trials on workers: which runs where, and which hangs. What becomes of a trial is for its caller to say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from vitsearch.artifacts import claim
from vitsearch.messages import EpochReport, TrialFailure, TrialRequest
from vitsearch.search.executor import (
    EpochDone,
    Event,
    Executor,
    ProfileDone,
    WorkerRests,
)

LISTENS_EVERY_S = 5.0
"""Who looks after trials less often has been away: the time beyond it says nothing about them."""


@dataclass(kw_only=True)
class Running:
    """A trial on a worker.

    Attributes:
        trial: Its number.
        since: When it started, last made progress or had to rest, on the driver's clock; later by the time in
            which the driver could not have heard of it.
        report: Its latest progress.
    """

    trial: int
    since: float
    report: EpochReport | None = None


class Dispatcher:
    """Hands trials to idle workers and watches them.

    Args:
        executor: Runs them.
        timeout_s: Without progress for longer, a trial hangs.
        clock: Seconds from any fixed point.
        begun: Trials that an earlier driver may have started.

    Attributes:
        running: What each busy worker does.
    """

    def __init__(
        self, executor: Executor, *, timeout_s: float, clock: Callable[[], float], begun: Iterable[int] = ()
    ) -> None:
        self._executor, self._timeout_s, self._clock = executor, timeout_s, clock
        self._begun = set(begun)
        self._listened = clock()
        self.running: dict[str, Running] = {}

    def idle_workers(self) -> list[str]:
        """Those that could take a trial now, and have none whose end is still to be told."""
        return [worker for worker in self._executor.idle_workers() if worker not in self.running]

    def start(self, worker: str, request: TrialRequest) -> None:
        """Give a trial to an idle worker.

        One that has been started before gets a claim on its files: a worker that was taken for lost may still be
        at it, cut off from here but not from a file system that all share.
        """
        if request.trial in self._begun:
            with suppress(OSError):  # the worker will meet it, too, and tell
                request = request.model_copy(update={"claim": claim(request.artifact_dir)})
        self._begun.add(request.trial)
        self.running[worker] = Running(trial=request.trial, since=self._clock())
        self._executor.submit(worker, request)

    def note(self, event: Event) -> bool:
        """Keep up with what has happened.

        Returns:
            Whether it is of a trial that runs, or ran until this event.
        """
        if isinstance(event, ProfileDone):
            return False
        running = self.running.get(event.worker)
        if running is None:
            return False
        if isinstance(event, EpochDone):
            if running.trial != event.report.trial:
                return False
            running.report, running.since = event.report, self._clock()
        elif isinstance(event, WorkerRests):
            running.since = self._clock()
        else:
            del self.running[event.worker]
        return True

    def give_up_on_hanging(self) -> Iterator[TrialFailure]:
        """Replace each worker whose trial hangs; yields what becomes of the trial.

        Called after every look at events. Where that was long ago (the database was away, the process stopped),
        reports may still be under way, and the time is not the trials'.
        """
        now = self._clock()
        away_s = now - self._listened - LISTENS_EVERY_S
        self._listened = now
        for running in self.running.values() if away_s > 0 else ():
            running.since = min(now, running.since + away_s)
        for worker, running in list(self.running.items()):
            if now - running.since > self._timeout_s:
                message = (
                    f"no progress for {self._timeout_s:g} s; raise search.trial_timeout_s if trials are this slow"
                )
                del self.running[worker]
                self._executor.restart(worker, message)
                yield TrialFailure(trial=running.trial, stage="train", failure="timeout", message=message)
