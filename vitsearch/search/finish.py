"""After the search: measure the front on every target, retrain winners, read the test split once."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path

from vitsearch.config import JobSpec
from vitsearch.messages import TrialFailure, TrialRequest, TrialResult
from vitsearch.search.dispatcher import Dispatcher
from vitsearch.search.driver import POLL_S, data_seed, trial_seed
from vitsearch.search.executor import (
    EpochDone,
    Event,
    Executor,
    ProfileDone,
    TrialDone,
    WorkerLost,
    WorkerTaken,
)
from vitsearch.search.measurements import Measurements
from vitsearch.search.places import Places, forget_checkpoints
from vitsearch.search.study import Study
from vitsearch.storage import TrialRecord

FINAL_SEED_OFFSET = 1_000_000


def final_epochs(job: JobSpec) -> int:
    """Epochs of a retraining at full length."""
    return job.final.epochs or 3 * job.train.epochs


class Finisher:
    """Completes a study whose search has ended; what is done already is not done again.

    Args:
        study: The study; its store's lease must be held.
        executor: Idle by now.
        out: The run's folder.
        on_step: Told what happens next, for displays.
        clock: Seconds from any fixed point.
    """

    def __init__(
        self,
        study: Study,
        executor: Executor,
        out: Path,
        *,
        on_step: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.study, self.job, self.executor, self.out = study, study.job, executor, out
        self._on_step = on_step
        self.places = Places.of(study.job, out)
        self._epochs = final_epochs(study.job)
        self._problems: list[str] = []
        self._queue: deque[int] = deque()
        self._dispatcher = Dispatcher(
            executor, timeout_s=study.job.search.trial_timeout_s, clock=clock, begun=study.trials
        )
        self._attempts: Counter[int] = Counter()
        self.stop_requested = False

    def run(self) -> list[str]:
        """Measure and retrain; returns sentences about what failed."""
        for trial in self.winners():
            if trial.final is not None:  # the last driver may have died before it was tidy
                forget_checkpoints(self.places.final(trial.number))
        self._retrain()  # first: a target may be away
        self._profile_front()
        self.study.store.enqueue("front", {"members": [trial.number for trial in self.study.front]})
        self.study.store.enqueue("finished", {})
        return self._problems

    def winners(self) -> list[TrialRecord]:
        """The trials to retrain at full length."""
        if self.job.final.retrain == "front":
            return self.study.front
        knee = self.study.knee() if self.job.final.retrain == "knee" else None
        return [] if knee is None else [knee]

    def _profile_front(self) -> None:
        wanted = {
            (trial.number, target.name): target
            for trial in self.study.front
            for target in self.job.targets
            if target.name not in trial.profiles
        }
        if wanted:
            self._on_step(f"measuring {len(wanted)} model{'s' if len(wanted) > 1 else ''}")
        measurements = Measurements(self.study, self.executor, self.places)
        todo = {}
        for (number, name), target in wanted.items():
            known = measurements.begin(number, target)
            if known is None:
                todo[number, name] = target
            else:
                self.study.store_profile(number, known)
        while todo and not self.stop_requested:
            if waits_for := self.executor.waits_for():
                self._on_step(waits_for)
            for event in self.executor.poll(POLL_S):
                if isinstance(event, ProfileDone) and (event.trial, event.target) in todo:
                    target = todo.pop((event.trial, event.target))
                    if event.profile is not None:
                        measurements.end(event.trial, target, event.profile)
                        self.study.store_profile(event.trial, event.profile)
                    else:
                        self._problems.append(
                            f"trial {event.trial} could not be measured on {event.target}: {event.reason}"
                        )

    def _retrain(self) -> None:
        self._queue.extend(trial.number for trial in self.winners() if trial.final is None)
        if self._queue:
            self._on_step(f"retraining {len(self._queue)} at full length, then the test split")
        while (self._queue or self._dispatcher.running) and not self.stop_requested:
            for worker in self._dispatcher.idle_workers():
                if self._queue:
                    self._start(worker, self._queue.popleft())
            for event in self.executor.poll(POLL_S):
                if self._dispatcher.note(event):
                    self._handle(event)
            for failure in self._dispatcher.give_up_on_hanging():
                self._store(failure.trial, failure)

    def _start(self, worker: str, number: int) -> None:
        candidate = self.study.trials[number].candidate
        recipe = candidate.training.applied_to(self.job.train)
        self._attempts[number] += 1
        self._dispatcher.start(
            worker,
            TrialRequest(
                trial=number,
                attempt=self._attempts[number],
                candidate=candidate,
                train=recipe.model_copy(update={"epochs": self._epochs, "early_stop": False}),
                evaluate=self.job.evaluate,
                seed=trial_seed(self.job.seed, number + FINAL_SEED_OFFSET),
                data_seed=data_seed(self.job, self.study.space),
                split="test",
                data_fingerprint=self.study.data.fingerprint,
                artifact_dir=self.places.final(number),
            ),
        )

    def _handle(self, event: Event) -> None:
        if isinstance(event, EpochDone):
            report = event.report
            doing = "retraining" if report.epochs == self._epochs else "fine-tuning"
            self._on_step(f"{doing} trial {report.trial}: epoch {report.epoch}/{report.epochs}")
        elif isinstance(event, TrialDone):
            outcome = event.outcome
            if not (isinstance(outcome, TrialFailure) and outcome.retryable):
                self._store(outcome.trial, outcome)
            elif not self._tries_again(outcome.trial):
                self._problems.append(f"retraining trial {outcome.trial} waits for a resume: {outcome.message}")
        elif isinstance(event, WorkerTaken):
            self._attempts[event.trial] -= 1
            self._queue.append(event.trial)
        elif isinstance(event, WorkerLost) and not self._tries_again(event.trial):
            self._problems.append(f"retraining trial {event.trial} failed: {event.reason}")

    def _tries_again(self, number: int) -> bool:
        if self._attempts[number] > self.job.search.max_retries:
            return False
        self._queue.append(number)
        return True

    def _store(self, number: int, outcome: TrialResult | TrialFailure) -> None:
        self.study.store.store_final(number, outcome)
        self.study.update(number, final=outcome)
        forget_checkpoints(self.places.final(number))
        if not isinstance(outcome, TrialResult):
            self._problems.append(f"retraining trial {number} failed: {outcome.message}")
