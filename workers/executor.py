"""Trials and measurements on Ray Core: persistent actors that take JSON and give JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import ray

from vitsearch.candidate import Architecture
from vitsearch.config import TrainSpec
from vitsearch.config.train import Autocast
from vitsearch.messages import EpochReport, Outcome, ProfileRequest, TrialRequest
from vitsearch.search import EpochDone, Event, TrialDone, WorkerLost
from workers.measuring import Target
from workers.resources import reason_of
from workers.shared_data import SharedData
from workers.trainer import Trainer

Answers = tuple[npt.NDArray[np.uint16], npt.NDArray[np.float16]]  # classes, log-probabilities

REPORTS_EVERY_S = 0.5
PAUSE_TIMEOUT_S = 120.0
# How long a thread of libgomp, torch's on Linux, looks out for work before it sleeps. With its own figure one busy
# process beside two threads makes a training step eleven times as long; with this one two to three times as long
# (alone no difference was seen; sleeping at once costs a fifth there).
SPINS = 10_000


@dataclass(kw_only=True)
class _Worker:
    """A trainer actor and what it is doing."""

    actor: Any
    machine_ref: Any  # reference of the name of its machine
    machine: str | None = None  # that name, once it has answered
    paused: bool = False
    task: Any = None  # reference of the running trial
    trial: int | None = None
    reports: Any = None  # reference of an unanswered question for progress
    asked_at: float = 0.0


class RayExecutor:
    """Runs trials on trainer actors and measurements on profiler actors.

    Ray must be initialised. A lost actor is replaced under the same name. The trainers of a machine rest while
    something is measured on it.

    Args:
        data: The images in the object store.
        workers: Number of trainers.
        threads: Compute threads of each.
        cpus: Ray CPUs of each; fractions let more trainers than processors share a machine.
        gpus: Ray GPUs of each.
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
        trainer: type[Trainer] = Trainer,
    ) -> None:
        self._trainer = trainer
        self._data, self._threads, self._cpus, self._gpus = data, threads, cpus, gpus
        self._workers = {f"w{i}": self._new_worker() for i in range(workers)}
        self._targets: dict[str, Target] = {}
        self._events: list[Event] = []

    def idle_workers(self) -> list[str]:
        """Trainers without a trial, while nothing is being measured beside them."""
        held = self._held_machines()
        free = {name: worker for name, worker in self._workers.items() if worker.task is None}
        return [name for name, worker in free.items() if not (held and self._is_on(worker, held))]

    def submit(self, worker: str, request: TrialRequest) -> None:
        """Start a trial."""
        w = self._workers[worker]
        w.task, w.trial = w.actor.run.remote(request.model_dump_json()), request.trial
        w.asked_at = time.monotonic()

    def submit_profile(self, request: ProfileRequest) -> None:
        """Queue a measurement."""
        name = request.target.name
        self._targets.setdefault(name, Target(name=name, data=self._data)).queue.append(request)

    def restart(self, worker: str, reason: str) -> None:  # noqa: ARG002
        """Kill a hanging trainer and start another; the driver knows already that its trial is lost."""
        ray.kill(self._workers[worker].actor)
        self._workers[worker] = self._new_worker()

    def fastest_autocast(self, architecture: Architecture, batch_size: int) -> Autocast:
        """Measured on one trainer while the others are idle."""
        worker = next(iter(self._workers.values()))
        mode: Autocast = ray.get(worker.actor.fastest_autocast.remote(architecture.model_dump_json(), batch_size))
        return mode

    def wait_until_ready(self) -> None:
        """Block until every trainer holds the data."""
        ray.get([worker.actor.ping.remote() for worker in self._workers.values()])

    def ask_teacher(
        self, train: TrainSpec, seed: int, on_epoch: Callable[[int], None] = lambda _: None
    ) -> Answers:
        """A teacher's answers to every batch that trials will see; the trainers share the epochs.

        Args:
            train: The recipe, with this teacher alone.
            seed: Seed of order and augmentation.
            on_epoch: Told how many epochs are done.

        Returns:
            Classes and log-probabilities, both (E, N, T).
        """
        actors = [worker.actor for worker in self._workers.values()]
        recipe = train.model_dump_json()
        asked = [actors[epoch % len(actors)].teach.remote(recipe, seed, epoch) for epoch in range(train.epochs)]
        parts = []
        for epoch, reference in enumerate(asked):
            parts.append(ray.get(reference))
            on_epoch(epoch + 1)
        return np.concatenate([classes for classes, _ in parts]), np.concatenate([logs for _, logs in parts])

    def share_answers(self, answers: Sequence[Answers]) -> None:
        """Put the answers of each teacher into the object store, for all trainers now and to come."""
        references = tuple(ray.put(array) for pair in answers for array in pair)
        self._data = replace(self._data, answers=references)
        ray.get([worker.actor.learn_from.remote(*references) for worker in self._workers.values()])

    def poll(self, timeout_s: float) -> list[Event]:
        """Wait for a trial, a report or a measurement."""
        self._measure()
        self._ask_for_reports()
        waiting = [w.task for w in self._workers.values() if w.task is not None]
        waiting += [w.reports for w in self._workers.values() if w.reports is not None]
        waiting += [reference for target in self._targets.values() for reference in target.pending()]
        if waiting:
            ready, _ = ray.wait(waiting, num_returns=1, timeout=timeout_s, fetch_local=True)
            more, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0) if ready else ([], [])
            self._collect({*ready, *more})
        else:
            time.sleep(min(timeout_s, 0.05))
        self._measure()
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """Kill all actors."""
        for worker in self._workers.values():
            ray.kill(worker.actor)
        for target in self._targets.values():
            target.close()
        self._workers.clear()

    def _new_worker(self) -> _Worker:
        options = {"num_cpus": self._cpus, "num_gpus": self._gpus, "max_concurrency": 2}
        threads = str(self._threads)
        environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "GOMP_SPINCOUNT": str(SPINS)}
        cls = ray.remote(self._trainer).options(**options, runtime_env={"env_vars": environment})
        data = self._data
        actor = cls.remote(data.images_ref, data.labels_ref, data.meta, self._threads, "auto", *data.answers)
        return _Worker(actor=actor, machine_ref=actor.machine.remote())

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
            self._events.append(WorkerLost(worker=name, trial=worker.trial, reason=reason_of(error)))
            ray.kill(worker.actor)
            self._workers[name] = self._new_worker()
            return
        self._events.append(TrialDone(worker=name, outcome=outcome))
        worker.task, worker.trial = None, None

    def _measure(self) -> None:
        """Bring measurements on; trainers work again where none is left."""
        for target in self._targets.values():
            done = target.advance(self._hold)
            if done is not None:
                self._events.append(done)
        held = self._held_machines()
        for worker in self._workers.values():
            if worker.paused and not (held and self._is_on(worker, held)):
                worker.actor.resume.remote()
                worker.paused = False

    def _held_machines(self) -> set[str | None]:
        """Where something is measured or about to be; None stands for a machine not known yet."""
        return {t.machine for t in self._targets.values() if t.is_active}

    def _is_on(self, worker: _Worker, machines: set[str | None]) -> bool:
        """Whether a trainer is, or may be, on one of these machines."""
        if worker.machine is None:
            ready, _ = ray.wait([worker.machine_ref], timeout=0)
            if not ready:
                return True
            try:
                worker.machine = ray.get(worker.machine_ref)
            except ray.exceptions.RayError:
                return True  # dying; its trial will say so
        return None in machines or worker.machine in machines

    def _hold(self, machine: str) -> list[Any]:
        """Ask every busy trainer of a machine to rest at its next batch; references of what they answer."""
        answers = []
        for worker in self._workers.values():
            if worker.task is not None and self._is_on(worker, {machine}):
                worker.paused = True
                answers.append(worker.actor.pause.remote(PAUSE_TIMEOUT_S))
        return answers


def _parse_outcome(text: str) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Outcome).validate_json(text)
