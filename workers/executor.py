"""Trials and measurements on Ray Core: persistent actors that take JSON and give JSON."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import ray

from vitsearch.candidate import Architecture
from vitsearch.config import TrainSpec
from vitsearch.config.train import Autocast
from vitsearch.errors import StudyError, WorkerError
from vitsearch.messages import MachineFacts, Outcome, ProfileRequest, TrialFailure, TrialRequest, WorkerReport
from vitsearch.search import EpochDone, Event, TrialDone, WorkerLost, WorkerRests, WorkerTaken
from workers.deaths import DEATHS, reason_of, took_the_memory
from workers.desk import Desk
from workers.measuring import Target
from workers.pool import Pool, Worker
from workers.profiler import Profiler
from workers.resources import TARGET_SHARE, place_of_target
from workers.share import Share
from workers.shared_data import SharedData
from workers.trainer import Trainer

Answers = tuple[npt.NDArray[np.uint16], npt.NDArray[np.float16]]  # classes, log-probabilities

REPORT_EVERY_S = 0.5
READY_POLL_S = 0.5
TELL_EVERY_S = 10.0
REST_S = 30.0
MOST_LOSSES = 10
# How long a thread of libgomp, torch's on Linux, looks out for work before it sleeps. With its own figure one busy
# process beside two threads makes a training step eleven times as long; with this one two to three times as long
# (alone no difference was seen; sleeping at once costs a fifth there).
SPINS = 10_000


class RayExecutor:
    """Runs trials on trainer actors and measurements on profiler actors.

    Ray must be initialised. A lost actor is replaced under the same name. The trainers of a machine rest by
    themselves while something is measured on it. With a share of a cluster, trainers come and go: one whose place
    another study should have leaves at the end of an epoch, and its trial goes on elsewhere.

    Args:
        data: The images in the object store.
        workers: Number of trainers; with a share, the number to begin with.
        threads: Compute threads of each.
        cpus: Ray CPUs of each; fractions let more trainers than processors share a machine.
        gpus: Ray GPUs of each.
        trainer: The actor's class; benchmarks put one that trains nothing in its place.
        share: The study's part of a cluster; None where the trainers are all its own.
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
        share: Share | None = None,
    ) -> None:
        self._trainer, self._share = trainer, share
        self._data, self._threads, self._cpus, self._gpus = data, threads, cpus, gpus
        self._pool = Pool(self._start_trainer, workers)
        self._targets: dict[str, Target] = {}
        self._desk = Desk(data)
        self._sample: tuple[Any, Any] | None = None  # references of the validation images and their classes
        self._events: list[Event] = []
        self._error: StudyError | None = None  # why the search is to end, once what has happened is told
        self._is_told = False
        self._losses = 0  # before the first trial

    def idle_workers(self) -> list[str]:
        """Trainers without a trial."""
        try:
            self._pool.settle()
        except StudyError as error:
            self._error = self._error or error
        return self._idle()

    def submit(self, worker: str, request: TrialRequest) -> None:
        """Start a trial."""
        w = self._pool.workers[worker]
        w.task, w.trial = w.actor.run.remote(request.model_dump_json()), request.trial
        w.asked_at = time.monotonic()

    def submit_profile(self, request: ProfileRequest) -> None:
        """Queue a measurement."""
        self._target(request.target.name).add(request)

    def facts_of(self, target: str, wait_s: float = 0.0) -> MachineFacts | None:
        """Asked of a process on the target, which is started for it."""
        found = self._target(target)
        found.wait(wait_s)
        return None if found.stands_in else found.facts

    def waits_for(self) -> str:
        """Targets that are away."""
        return "; ".join(filter(None, (target.waits_for for target in self._targets.values())))

    def restart(self, worker: str, reason: str) -> None:  # noqa: ARG002
        """Kill a hanging trainer and start another; the driver knows already that its trial is lost."""
        self._pool.replace(worker)

    def fastest_autocast(self, architecture: Architecture, batch_size: int) -> Autocast:
        """Measured on one trainer while the others are idle."""
        while True:
            name, worker = next((name, one) for name, one in self._pool.workers.items() if one.is_ready)
            asked = worker.actor.fastest_autocast.remote(architecture.model_dump_json(), batch_size)
            try:
                mode: Autocast = ray.get(asked)
            except ray.exceptions.RayError as error:
                self._replace_lost(name, error)
                self.wait_until_ready()
            else:
                return mode

    def wait_until_ready(self, on_wait: Callable[[str], None] = lambda _: None) -> None:
        """Block until every trainer holds the data; with a share of a cluster, until one of them does.

        Those that die at their start while others work are not waited for.

        Args:
            on_wait: Told, again and again, what is waited for.

        Raises:
            StudyError: Trainers die at their start.
        """
        began = told = time.monotonic()
        while True:
            self._follow_share()
            self._pool.settle()
            starting, ready = self._pool.starting(), self._ready()
            if ready and (self._share is not None or not starting):
                return
            if starting:
                ray.wait(starting, timeout=READY_POLL_S)
            else:  # other studies' turn, or trainers that are started again later
                time.sleep(READY_POLL_S)
            if time.monotonic() - told > TELL_EVERY_S:
                told = time.monotonic()
                on_wait(f"waiting for trainers to find room and to start: {told - began:.0f} s")

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
        recipe, left = train.model_dump_json(), deque(range(train.epochs))
        answers: dict[int, Answers] = {}
        while len(answers) < train.epochs:
            self._follow_share()
            self._pool.settle()
            for name in self._idle():
                if left:
                    worker = self._pool.workers[name]
                    worker.trial = left.popleft()
                    worker.task = worker.actor.teach.remote(recipe, seed, worker.trial)
            asked = {name: worker for name, worker in self._pool.workers.items() if worker.task is not None}
            if not asked:
                time.sleep(READY_POLL_S)
                continue
            ray.wait([worker.task for worker in asked.values()], timeout=READY_POLL_S)
            for name, worker in asked.items():
                if _has_ended(worker.task):
                    assert worker.trial is not None
                    epoch, answer = worker.trial, self._answer(name)
                    if answer is None:
                        left.appendleft(epoch)
                    else:
                        answers[epoch] = answer
                        on_epoch(len(answers))
        parts = [answers[epoch] for epoch in range(train.epochs)]
        return np.concatenate([classes for classes, _ in parts]), np.concatenate([logs for _, logs in parts])

    def share_answers(self, answers: Sequence[Answers]) -> None:
        """Put the answers of each teacher into the object store, for all trainers now and to come."""
        references = tuple(ray.put(array) for pair in answers for array in pair)
        self._data = replace(self._data, answers=references)
        told = {id(worker): worker.actor.learn_from.remote(*references) for worker in self._pool}
        for worker in self._ready():  # the others learn when they have started
            with suppress(*DEATHS):  # as does who takes its place
                ray.get(told[id(worker)])

    def poll(self, timeout_s: float) -> list[Event]:
        """Wait for a trial, a report or a measurement.

        Raises:
            StudyError: No trial or measurement would fare better now; once all that has happened is told.
        """
        if self._error is not None and self._is_told:
            raise self._error
        self._follow_share()
        self._measure()
        timeout_s = timeout_s if self._error is None else 0.0
        self._ask_for_reports()
        waiting = [w.task for w in self._pool if w.task is not None]
        waiting += [w.report for w in self._pool if w.report is not None]
        waiting += [reference for target in self._targets.values() for reference in target.pending()]
        if waiting:
            ready, _ = ray.wait(waiting, num_returns=1, timeout=timeout_s, fetch_local=True)
            more, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0) if ready else ([], [])
            self._collect({*ready, *more})
        elif starting := self._pool.starting():
            ray.wait(starting, timeout=min(timeout_s, READY_POLL_S))
        else:
            time.sleep(min(timeout_s, 0.05))
        self._measure()
        events, self._events = self._events, []
        self._is_told = self._error is not None
        if self._error is not None and not events:
            raise self._error
        return events

    def close(self) -> None:
        """Kill all actors."""
        self._pool.close()
        for target in self._targets.values():
            target.close()
        self._desk.close()
        if self._share is not None:
            self._share.leave()

    def _start_trainer(self) -> Any:
        options: dict[str, Any] = {"num_cpus": self._cpus, "num_gpus": self._gpus, "max_concurrency": 2}
        if self._share is not None:
            options["scheduling_strategy"] = "SPREAD"
        threads = str(self._threads)
        environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "GOMP_SPINCOUNT": str(SPINS)}
        cls = ray.remote(self._trainer).options(**options, runtime_env={"env_vars": environment})
        data = self._data
        return cls.remote(data.images_ref, data.labels_ref, data.meta, self._threads, "auto", *data.answers)

    def _idle(self) -> list[str]:
        return [name for name, worker in self._pool.workers.items() if worker.is_idle]

    def _ready(self) -> list[Worker]:
        return [worker for worker in self._pool if worker.is_ready]

    def _follow_share(self) -> None:
        """Have as many trainers as the cluster's other studies leave."""
        if self._share is None:
            return
        now, ready = time.monotonic(), self._ready()
        busy = sum(worker.task is not None for worker in ready)
        idle = [worker for worker in ready if worker.task is None]
        rests = bool(idle) and all(now - worker.idle_since > REST_S for worker in idle)
        held = sum(worker.has_place for worker in self._pool)
        if not held and any(worker.restart_at is not None for worker in self._pool):
            held = 1  # it died at its start, and so had found a node: there is no lack of room
        size = self._share.refresh(held, busy, rests=rests)
        if size != self._pool.num_staying:
            self._pool.resize(size)

    def _ask_for_reports(self) -> None:
        now = time.monotonic()
        for worker in self._pool:
            if worker.task is not None and worker.report is None and now - worker.asked_at > REPORT_EVERY_S:
                worker.report, worker.asked_at = worker.actor.report.remote(), now

    def _collect(self, ready: set[Any]) -> None:
        for name, worker in list(self._pool.workers.items()):
            if worker.report in ready:
                self._collect_report(name, worker)
            if worker.task in ready:
                self._collect_outcome(name, worker)

    def _collect_report(self, name: str, worker: Worker) -> None:
        report = WorkerReport()
        # of a loss the task's own reference tells, and what cannot be read is no progress
        with suppress(ray.exceptions.RayError, ValueError):
            report = WorkerReport.model_validate_json(ray.get(worker.report))
        worker.report = None
        self._events += [EpochDone(worker=name, report=epoch) for epoch in report.epochs]
        if report.rests:
            self._events.append(WorkerRests(worker=name))
        if report.epochs and worker.leaving and worker.trial is not None and not _has_ended(worker.task):
            self._events.append(WorkerTaken(worker=name, trial=worker.trial))
            self._pool.remove(name)

    def _collect_outcome(self, name: str, worker: Worker) -> None:
        assert worker.trial is not None
        try:
            outcome = _parse_outcome(ray.get(worker.task))
        except (ray.exceptions.RayError, WorkerError) as error:
            self._events.append(_loss(name, worker.trial, error, worker.actor))
            self._pool.replace(name)
            return
        self._events.append(TrialDone(worker=name, outcome=outcome))
        self._release(name)

    def _answer(self, name: str) -> Answers | None:
        """What a trainer was asked for; None where it or its answer is lost, and another is in its place."""
        try:
            found: Answers = ray.get(self._pool.workers[name].task)
        except ray.exceptions.RayError as error:
            self._replace_lost(name, error)
            return None
        self._release(name)
        return found

    def _release(self, name: str) -> None:
        worker = self._pool.workers[name]
        worker.task, worker.trial, worker.idle_since = None, None, time.monotonic()
        if worker.leaving:
            self._pool.remove(name)

    def _replace_lost(self, name: str, error: Exception) -> None:
        """A trainer that died, or could not do what others may, while the search was being prepared.

        Raises:
            StudyError: Too many have.
        """
        self._losses += 1
        if self._losses > MOST_LOSSES:
            raise StudyError(
                f"trainers fail while the search is prepared, the last one because: {reason_of(error)}; "
                f"mend that, and resume"
            ) from error
        self._pool.replace(name)

    def _measure(self) -> None:
        """Bring measurements on."""
        for target in self._targets.values():
            try:
                done = target.advance(self._desk)
            except StudyError as error:  # nobody would tell again what else this poll has found
                self._error = self._error or error
            else:
                self._events += [done] if done is not None else []

    def _target(self, name: str) -> Target:
        if name not in self._targets:
            self._targets[name] = Target(name=name, start=self._start_profiler)
        return self._targets[name]

    def _start_profiler(self, place: str) -> Any:
        if self._sample is None:
            images, labels = ray.get([self._data.images_ref, self._data.labels_ref])
            val = self._data.meta["val"]
            self._sample = ray.put(images[val]), ray.put(labels[val])
        self._desk.open()  # both take seconds to start
        options = {"num_cpus": 0, "resources": {place_of_target(place): TARGET_SHARE}}
        meta = self._data.meta
        return ray.remote(Profiler).options(**options).remote(*self._sample, meta["mean"], meta["std"])


def _has_ended(task: Any) -> bool:
    return bool(ray.wait([task], timeout=0)[0])


def _loss(worker: str, trial: int, error: Exception, actor: Any) -> TrialDone | WorkerLost:
    """What an end without an outcome is: the trial's own, or that of a worker which may have been anyone's."""
    reason = reason_of(error)
    if not took_the_memory(error, actor):
        return WorkerLost(worker=worker, trial=trial, reason=reason)
    failure = TrialFailure(trial=trial, stage="worker", failure="out_of_memory", message=reason)
    return TrialDone(worker=worker, outcome=failure)


def _parse_outcome(text: str) -> Any:
    from pydantic import TypeAdapter

    try:
        return TypeAdapter(Outcome).validate_json(text)
    except ValueError as error:
        raise WorkerError("the worker's answer is no outcome of a trial") from error
