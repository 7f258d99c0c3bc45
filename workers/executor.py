"""Trials and measurements on Ray Core: persistent actors that take JSON and give JSON."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import ray

from vitsearch.candidate import Architecture
from vitsearch.config.train import Autocast
from vitsearch.messages import EpochReport, Outcome, Profile, ProfileRequest, TrialRequest
from vitsearch.search import EpochDone, Event, ProfileDone, TrialDone, WorkerLost
from workers.profiler import Profiler
from workers.resources import TARGET_SHARE, target_resource
from workers.shared_data import SharedData
from workers.trainer import Trainer

REPORTS_EVERY_S = 0.5
PAUSE_TIMEOUT_S = 120.0
PROFILE_TIMEOUT_S = 900.0


@dataclass(kw_only=True)
class _Worker:
    """A trainer actor and what it is doing."""

    actor: Any
    task: Any = None  # reference of the running trial
    trial: int | None = None
    reports: Any = None  # reference of an unanswered question for progress
    asked_at: float = 0.0


class RayExecutor:
    """Runs trials on trainer actors and measurements on profiler actors.

    Ray must be initialised. A lost actor is replaced under the same name.

    Args:
        data: The images in the object store.
        workers: Number of trainers.
        threads: Compute threads of each.
        cpus: Ray CPUs of each; fractions let more trainers than processors share a machine.
        gpus: Ray GPUs of each.
        pause_for_profiles: Hold the trainers while measuring, because they share the node with the target.
        trainer: The actor's class; benchmarks put one that trains nothing in its place.
    """

    def __init__(
        self,
        data: SharedData,
        *,
        workers: int,
        threads: int,
        cpus: float = 1.0,
        gpus: float = 0.0,
        pause_for_profiles: bool = True,
        trainer: type[Trainer] = Trainer,
    ) -> None:
        self._trainer = trainer
        self._data, self._threads, self._cpus, self._gpus = data, threads, cpus, gpus
        self._pause = pause_for_profiles
        self._workers = {f"w{i}": _Worker(actor=self._new_trainer()) for i in range(workers)}
        self._profilers: dict[str, Any] = {}
        self._queue: deque[ProfileRequest] = deque()
        self._measuring: tuple[ProfileRequest, Any] | None = None
        self._measuring_since = 0.0
        self._events: list[Event] = []

    def idle_workers(self) -> list[str]:
        """Trainers without a trial, while nothing is being measured beside them."""
        if self._pause and (self._measuring or self._queue):
            return []
        return [name for name, worker in self._workers.items() if worker.task is None]

    def submit(self, worker: str, request: TrialRequest) -> None:
        """Start a trial."""
        w = self._workers[worker]
        w.task, w.trial = w.actor.run.remote(request.model_dump_json()), request.trial
        w.asked_at = time.monotonic()

    def submit_profile(self, request: ProfileRequest) -> None:
        """Queue a measurement."""
        self._queue.append(request)

    def restart(self, worker: str, reason: str) -> None:  # noqa: ARG002
        """Kill a hanging trainer and start another; the driver knows already that its trial is lost."""
        ray.kill(self._workers[worker].actor)
        self._workers[worker] = _Worker(actor=self._new_trainer())

    def fastest_autocast(self, architecture: Architecture, batch_size: int) -> Autocast:
        """Measured on one trainer while the others are idle."""
        worker = next(iter(self._workers.values()))
        mode: Autocast = ray.get(worker.actor.fastest_autocast.remote(architecture.model_dump_json(), batch_size))
        return mode

    def wait_until_ready(self) -> None:
        """Block until every trainer holds the data."""
        ray.get([worker.actor.ping.remote() for worker in self._workers.values()])

    def poll(self, timeout_s: float) -> list[Event]:
        """Wait for a trial, a report or a measurement."""
        self._start_measurement()
        self._ask_for_reports()
        waiting = [w.task for w in self._workers.values() if w.task is not None]
        waiting += [w.reports for w in self._workers.values() if w.reports is not None]
        if self._measuring:
            waiting.append(self._measuring[1])
        if waiting:
            ready, _ = ray.wait(waiting, num_returns=1, timeout=timeout_s, fetch_local=True)
            more, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0) if ready else ([], [])
            self._collect({*ready, *more})
        else:
            time.sleep(min(timeout_s, 0.05))
        self._give_up_measuring()
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """Kill all actors."""
        for worker in self._workers.values():
            ray.kill(worker.actor)
        for profiler in self._profilers.values():
            ray.kill(profiler)
        self._workers.clear()

    def _new_trainer(self) -> Any:
        options = {"num_cpus": self._cpus, "num_gpus": self._gpus, "max_concurrency": 2}
        environment = {"env_vars": {"OMP_NUM_THREADS": str(self._threads), "MKL_NUM_THREADS": str(self._threads)}}
        cls = ray.remote(self._trainer).options(**options, runtime_env=environment)
        return cls.remote(self._data.images_ref, self._data.labels_ref, self._data.meta, self._threads)

    def _ask_for_reports(self) -> None:
        now = time.monotonic()
        for worker in self._workers.values():
            if worker.task is not None and worker.reports is None and now - worker.asked_at > REPORTS_EVERY_S:
                worker.reports, worker.asked_at = worker.actor.reports.remote(), now

    def _collect(self, ready: set[Any]) -> None:
        for name, worker in list(self._workers.items()):
            if worker.reports in ready:
                self._collect_reports(name, worker)
            if worker.task in ready:
                self._collect_outcome(name, worker)
        if self._measuring and self._measuring[1] in ready:
            self._collect_profile(*self._measuring)

    def _give_up_measuring(self) -> None:
        """End a measurement that hangs, or that no node offers its target's resource for."""
        if self._measuring and time.monotonic() - self._measuring_since > PROFILE_TIMEOUT_S:
            request, _ = self._measuring
            ray.kill(self._profilers.pop(request.target.name))
            reason = f"no answer from target {request.target.name!r} within {PROFILE_TIMEOUT_S:g} s"
            self._end_measurement(request, None, reason)

    def _collect_reports(self, name: str, worker: _Worker) -> None:
        try:
            reports = ray.get(worker.reports)
        except ray.exceptions.RayError:
            reports = []  # the task's own reference tells of the loss
        worker.reports = None
        self._events += [EpochDone(worker=name, report=EpochReport.model_validate_json(text)) for text in reports]

    def _collect_outcome(self, name: str, worker: _Worker) -> None:
        assert worker.trial is not None
        try:
            outcome = _parse_outcome(ray.get(worker.task))
        except ray.exceptions.RayError as error:
            reason = _reason(error)
            self._events.append(WorkerLost(worker=name, trial=worker.trial, reason=reason))
            ray.kill(worker.actor)
            self._workers[name] = _Worker(actor=self._new_trainer())
            return
        self._events.append(TrialDone(worker=name, outcome=outcome))
        worker.task, worker.trial = None, None

    def _start_measurement(self) -> None:
        if self._measuring or not self._queue:
            return
        request = self._queue.popleft()
        contended = not self._hold_trainers()
        request = request.model_copy(update={"contended": contended})
        profiler = self._profiler(request.target.name)
        self._measuring = (request, profiler.run.remote(request.model_dump_json()))
        self._measuring_since = time.monotonic()

    def _hold_trainers(self) -> bool:
        """Pause every busy trainer on this node; whether all of them came to rest."""
        busy = [worker for worker in self._workers.values() if worker.task is not None]
        if not self._pause:
            return not busy
        # all are asked before any is awaited
        answers = [worker.actor.pause.remote(PAUSE_TIMEOUT_S) for worker in busy]
        return all(_at_rest(answer) for answer in answers)

    def _collect_profile(self, request: ProfileRequest, task: Any) -> None:
        profile, reason = None, ""
        try:
            profile = Profile.model_validate_json(ray.get(task))
        except ray.exceptions.RayError as error:
            reason = _reason(error)
            if isinstance(error, ray.exceptions.RayActorError):
                self._profilers.pop(request.target.name, None)
        self._end_measurement(request, profile, reason)

    def _end_measurement(self, request: ProfileRequest, profile: Profile | None, reason: str) -> None:
        self._measuring = None
        self._events.append(
            ProfileDone(trial=request.trial, target=request.target.name, profile=profile, reason=reason)
        )
        if not self._queue:
            for worker in self._workers.values():
                worker.actor.resume.remote()

    def _profiler(self, target: str) -> Any:
        if target not in self._profilers:
            options = {"num_cpus": 0, "resources": {target_resource(target): TARGET_SHARE}}
            self._profilers[target] = ray.remote(Profiler).options(**options).remote()
        return self._profilers[target]


def _reason(error: Exception) -> str:
    """One line for people: what the actor raised, or how it died."""
    lines = str(error).strip().splitlines()
    raised_inside = isinstance(error, ray.exceptions.RayTaskError)
    return lines[-1 if raised_inside else 0][:300]


def _at_rest(answer: Any) -> bool:
    """What a trainer answered to ``pause``; a dead one does not compute."""
    try:
        return bool(ray.get(answer))
    except ray.exceptions.RayError:
        return True


def _parse_outcome(text: str) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Outcome).validate_json(text)
