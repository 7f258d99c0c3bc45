"""One driver and a thousand simulated workers: is it the driver that they wait for?

Trials last 60 to 600 s on a clock that only two things advance: the driver's own processor time, measured, and the
wait for the next trial to end. So every millisecond the driver computes is one in which finished workers idle.
Everything else is real: sampler, cost, store (SQLite), study, front, the live state.

Goals: utilisation of at least 97 % from the first dispatch to the last ask, a makespan within 3 % of list
scheduling without any overhead, an ask in 50 ms on average and 200 ms at the 95th percentile, memory under 1 GB.

Run: ``python benchmarks/scale.py [--workers N] [--trials N] [--samplers NAME ...]``; it ends with 1 where a goal
is missed, and with ``--report-only`` that is only said.
"""

from __future__ import annotations

import argparse
import heapq
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from vitsearch.candidate import Architecture
from vitsearch.cli.board import Board
from vitsearch.cli.session import Display
from vitsearch.config import JobSpec
from vitsearch.config.train import Autocast
from vitsearch.messages import ProfileRequest, TrialRequest, TrialResult
from vitsearch.search import Asker, Driver, Event, ProfileDone, TrialDone
from vitsearch.search.asker import Asked
from vitsearch.testing import noop_profile, noop_result
from vitsearch.testing.study import noop_data, noop_driver

SHORTEST_S, LONGEST_S = 60.0, 600.0
WARM_UP = 20  # asks: the first ones import what they need


class Clock:
    """Seconds that pass while the driver computes, and while it waits."""

    def __init__(self) -> None:
        self._waited, self._skipped, self._began = 0.0, 0.0, time.process_time()

    def __call__(self) -> float:
        return self._waited + time.process_time() - self._began - self._skipped

    def wait_until(self, moment: float) -> None:
        self._waited += max(0.0, moment - self())

    def skip(self, processor_s: float) -> None:
        """Leave out what the simulation itself has computed."""
        self._skipped += processor_s


@dataclass
class Workers:
    """Simulated workers; a trial's result is there when its time is over.

    Attributes:
        clock: Shared with the driver.
        count: How many.
        seed: Of the durations.
    """

    clock: Clock
    count: int
    seed: int = 0
    durations_s: list[float] = field(default_factory=list)
    busy_s: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._idle = [f"w{number}" for number in range(self.count)]
        self._running: list[tuple[float, int, str, TrialRequest]] = []
        self._events: list[Event] = []
        self._random = np.random.default_rng(self.seed)

    def idle_workers(self) -> list[str]:
        return list(self._idle)

    def submit(self, worker: str, request: TrialRequest) -> None:
        self._idle.remove(worker)
        now, duration_s = self.clock(), float(self._random.uniform(SHORTEST_S, LONGEST_S))
        self.durations_s.append(duration_s)
        self.busy_s.append((now, now + duration_s))
        heapq.heappush(self._running, (now + duration_s, request.trial, worker, request))

    def submit_profile(self, request: ProfileRequest) -> None:
        done = ProfileDone(trial=request.trial, target=request.target.name, profile=noop_profile(request))
        self._events.append(done)

    def facts_of(self, target: str, wait_s: float = 0.0) -> None:
        return None

    def waits_for(self) -> str:
        return ""

    def restart(self, worker: str, reason: str) -> None:
        raise AssertionError(f"{worker} is said to hang: {reason}")

    def fastest_autocast(self, architecture: Architecture, batch_size: int) -> Autocast:
        return "fp32"

    def poll(self, timeout_s: float) -> list[Event]:
        if not self._events and self._running:
            self.clock.wait_until(min(self._running[0][0], self.clock() + timeout_s))
        ended, began = [], time.process_time()
        while self._running and self._running[0][0] <= self.clock():
            _, _, worker, request = heapq.heappop(self._running)
            self._idle.append(worker)
            ended.append(TrialDone(worker=worker, outcome=result_of(request)))
        self.clock.skip(time.process_time() - began)
        events, self._events = [*self._events, *ended], []
        return events

    def close(self) -> None:
        """Nothing to stop."""


def result_of(request: TrialRequest) -> TrialResult:
    """What a trial might find, never the same twice."""
    result = noop_result(request)
    noise = np.random.default_rng(request.seed).normal(0, 0.01)
    return result.model_copy(update={"accuracy": float(np.clip(result.accuracy + noise, 0, 1))})


def list_scheduling_s(durations_s: list[float], workers: int) -> float:
    """Makespan of the same trials in the same order when each starts the moment a worker is free."""
    free = [0.0] * workers
    for duration_s in durations_s:
        heapq.heapreplace(free, free[0] + duration_s)
    return max(free)


def simulate(sampler: str, workers: int, trials: int, folder: Path) -> list[str]:
    """Search once and print the figures; returns the goals that were missed."""
    job = JobSpec.model_validate(
        {
            "name": "scale",
            "dataset": {"kind": "digits"},
            "space": "vit_micro_8",
            "search": {"sampler": sampler, "trials": trials, "trial_timeout_s": 1e9},
            "train": {"autocast": "fp32"},
        }
    )
    clock = Clock()
    executor = Workers(clock, workers)
    asks_s: list[float] = []
    asked_at: list[float] = []
    original = Asker.ask

    def timed(self: Asker) -> Asked:
        began = time.process_time()
        asked = original(self)
        asks_s.append(time.process_time() - began)
        asked_at.append(clock())
        return asked

    Asker.ask = timed  # type: ignore[method-assign]
    process, memory = psutil.Process(), list[float]()

    quiet = Display(on_step=lambda _: None, on_change=lambda _: None, on_stop=lambda _: None)
    board = Board("scale", lambda _: None, clock=clock).beside(quiet)

    def watch(driver: Driver) -> None:
        board.on_change(driver)
        if len(asks_s) // 1000 > len(memory):
            memory.append(process.memory_info().rss / 2**20)

    try:
        driver = noop_driver(folder, job, data=noop_data(), executor=executor, clock=clock,
                             on_change=watch)  # fmt: skip
        began = time.process_time()
        driver.run()
        processor_s = time.process_time() - began
    finally:
        Asker.ask = original  # type: ignore[method-assign]
    first, last = executor.busy_s[0][0], asked_at[-1]
    busy = sum(max(0.0, min(end, last) - max(start, first)) for start, end in executor.busy_s)
    makespan = max(end for _, end in executor.busy_s) - first
    ideal = list_scheduling_s(executor.durations_s, workers)
    asks_ms = 1000 * np.array(asks_s[WARM_UP:])
    done = sum(trial.succeeded for trial in driver.study.trials.values())
    assert done == trials, f"only {done} of {trials} trials are done"
    quarters = " ".join(f"{part.mean():.1f}" for part in np.array_split(asks_ms, 4))
    sizes = " ".join(f"{size:.0f}" for size in memory)
    print(
        f"{sampler:<8} utilisation {100 * busy / (workers * (last - first)):5.1f} %   "
        f"makespan {makespan:,.0f} s, {100 * (makespan / ideal - 1):+.1f} %   "
        f"ask {asks_ms.mean():5.1f} ms, p95 {np.percentile(asks_ms, 95):5.1f}, by quarters {quarters}\n"
        f"{'':<8} {len(asks_s)} asks for {trials} trials, driver {1000 * processor_s / trials:.1f} ms a trial, "
        f"memory {sizes} MB after each 1,000 asks",
        flush=True,
    )
    goals = {
        "utilisation of at least 97 %": busy / (workers * (last - first)) >= 0.97,
        "makespan within 3 %": makespan <= 1.03 * ideal,
        "ask in 50 ms on average": asks_ms.mean() <= 50,
        "ask in 200 ms at the 95th percentile": np.percentile(asks_ms, 95) <= 200,
        "memory under 1 GB": max(memory, default=0.0) < 1000,
    }
    return [f"{sampler} misses: {goal}" for goal, met in goals.items() if not met]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--samplers", nargs="+", default=["random", "nsga2", "nsga3", "tpe", "gp"])
    parser.add_argument("--report-only", action="store_true", help="end with 0 whatever is missed")
    options = parser.parse_args()
    missed = []
    for sampler in options.samplers:
        with tempfile.TemporaryDirectory() as folder:
            missed += simulate(sampler, options.workers, options.trials, Path(folder))
    print("\n".join(missed) if missed else "all goals are met")
    sys.exit(1 if missed and not options.report_only else 0)


if __name__ == "__main__":
    main()
