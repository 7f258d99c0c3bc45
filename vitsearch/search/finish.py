"""After the search: measure the front on every target, retrain winners, read the test split once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vitsearch.messages import ProfileRequest, TrialFailure, TrialRequest, TrialResult
from vitsearch.search.driver import POLL_S, artifact_dir, trial_seed
from vitsearch.search.executor import EpochDone, Executor, ProfileDone, TrialDone, WorkerLost
from vitsearch.search.study import Study
from vitsearch.storage import TrialRecord

FINAL_SEED_OFFSET = 1_000_000


def final_dir(out: Path, trial: int) -> Path:
    """Where a retrained winner keeps its weights."""
    return out / "artifacts" / "finals" / f"{trial:05d}"


class Finisher:
    """Completes a study whose search has ended; what is done already is not done again.

    Args:
        study: The study; its store's lease must be held.
        executor: Idle by now.
        out: The run's folder.
        on_step: Told what happens next, for displays.
    """

    def __init__(
        self, study: Study, executor: Executor, out: Path, *, on_step: Callable[[str], None] = lambda _: None
    ) -> None:
        self.study, self.job, self.executor, self.out = study, study.job, executor, out
        self._on_step = on_step
        self.stop_requested = False

    def run(self) -> list[str]:
        """Measure and retrain; returns sentences about what failed."""
        problems = [*self._profile_front(), *self._retrain()]
        self.study.store.enqueue("front", {"members": [trial.number for trial in self.study.front]})
        self.study.store.enqueue("finished", {})
        return problems

    def _profile_front(self) -> list[str]:
        todo = {
            (trial.number, target.name): ProfileRequest(
                trial=trial.number,
                artifact_dir=str(artifact_dir(self.out, trial.number)),
                candidate=trial.candidate,
                target=target,
            )
            for trial in self.study.front
            for target in self.job.targets
            if target.name not in trial.profiles
        }
        if todo:
            self._on_step(f"measuring {len(todo)} models")
        for request in todo.values():
            self.executor.submit_profile(request)
        problems = []
        while todo and not self.stop_requested:
            for event in self.executor.poll(POLL_S):
                if isinstance(event, ProfileDone) and (event.trial, event.target) in todo:
                    del todo[event.trial, event.target]
                    if event.profile is not None:
                        self.study.store_profile(event.trial, event.profile)
                    else:
                        problems.append(
                            f"trial {event.trial} could not be measured on {event.target}: {event.reason}"
                        )
            self.study.store.renew(self.study.store.study().elapsed_s)
        return problems

    def winners(self) -> list[TrialRecord]:
        """The trials to retrain at full length."""
        if self.job.final.retrain == "front":
            return self.study.front
        knee = self.study.knee() if self.job.final.retrain == "knee" else None
        return [] if knee is None else [knee]

    def _retrain(self) -> list[str]:
        queue = [trial.number for trial in self.winners() if trial.final is None]
        if queue:
            self._on_step(f"retraining {len(queue)} at full length, then the test split")
        attempts: dict[int, int] = {}
        problems: list[str] = []
        running: dict[str, int] = {}
        while (queue or running) and not self.stop_requested:
            for worker in self.executor.idle_workers():
                if queue and worker not in running:
                    running[worker] = queue.pop(0)
                    attempts[running[worker]] = attempts.get(running[worker], 0) + 1
                    self.executor.submit(worker, self._request(running[worker]))
            for event in self.executor.poll(POLL_S):
                if isinstance(event, TrialDone):
                    number = running.pop(event.worker)
                    if isinstance(event.outcome, TrialFailure) and event.outcome.retryable:
                        problems.append(f"retraining trial {number} waits for a resume: {event.outcome.message}")
                        continue
                    self.study.store.store_final(number, event.outcome)
                    self.study.update(number, final=event.outcome)
                    if not isinstance(event.outcome, TrialResult):
                        problems.append(f"retraining trial {number} failed: {event.outcome.message}")
                elif isinstance(event, WorkerLost):
                    number = running.pop(event.worker)
                    if attempts[number] <= self.job.search.max_retries:
                        queue.append(number)
                    else:
                        problems.append(f"retraining trial {number} failed: {event.reason}")
                elif isinstance(event, EpochDone) and running.get(event.worker) == event.report.trial:
                    self._on_step(
                        f"retraining trial {event.report.trial}: epoch {event.report.epoch}/{event.report.epochs}"
                    )
            self.study.store.renew(self.study.store.study().elapsed_s)
        return problems

    def _request(self, number: int) -> TrialRequest:
        epochs = self.job.final.epochs or 3 * self.job.train.epochs
        return TrialRequest(
            trial=number,
            candidate=self.study.trials[number].candidate,
            train=self.job.train.model_copy(update={"epochs": epochs, "early_stop": False}),
            evaluate=self.job.evaluate,
            seed=trial_seed(self.job.seed, number + FINAL_SEED_OFFSET),
            split="test",
            data_fingerprint=self.study.data.fingerprint,
            artifact_dir=str(final_dir(self.out, number)),
        )
