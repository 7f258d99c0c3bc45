"""One driver per study: asks, dispatches, stores, tells, in that order.

Each step of a trial's life is durable before the next begins (``asked``, ``leased``, ``result``, ``told``), so a
driver that dies at any point is continued by the next one: results are told again to a rebuilt sampler, trials
without a result run again.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from vitsearch.artifacts import discard, names_in
from vitsearch.config import JobSpec, TrainSpec
from vitsearch.cost import cost_of
from vitsearch.errors import StudyError
from vitsearch.messages import Progress, TrialFailure, TrialRequest, TrialResult
from vitsearch.report.figures import known_figures, objective_values, violations
from vitsearch.search.asker import Asked, Asker, Past
from vitsearch.search.budget import Budget
from vitsearch.search.dispatcher import Dispatcher
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
from vitsearch.search.mirror import OptunaMirror
from vitsearch.search.places import Places, forget_checkpoints, resume_command
from vitsearch.search.progress import progress_of
from vitsearch.search.study import Study
from vitsearch.space import SearchSpace, recipes
from vitsearch.storage import TrialRecord

POLL_S = 0.5
RENEW_S = 5.0
FRUITLESS_PER_DISPATCH = 50
MAX_LOSSES_IN_A_ROW = 10
MAX_LOSSES_EACH = 2
DATA_SEED_OFFSET = 2_000_000
log = logging.getLogger(__name__)


class Driver:
    """Drives one study on one executor.

    Args:
        study: The study; its store's lease must be held.
        executor: Runs trials.
        out: The run's folder.
        on_change: Called after each round of the loop, for displays.
        clock: Seconds from any fixed point.
    """

    def __init__(
        self,
        study: Study,
        executor: Executor,
        out: Path,
        *,
        on_change: Callable[[Driver], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.study, self.job, self.executor, self.out = study, study.job, executor, out
        self.places = Places.of(study.job, out)
        self._dispatcher = Dispatcher(
            executor, timeout_s=study.job.search.trial_timeout_s, clock=clock, begun=study.trials
        )
        self.running = self._dispatcher.running
        self._on_change, self._clock = on_change, clock
        self._asker = Asker(study.space, study.job, list(self._past()))
        mirrored = study.job.storage.optuna_mirror
        self._mirror = OptunaMirror(out, study.job.name, self._asker.study) if mirrored else None
        self._waiting: deque[int] = deque()
        self._attached: dict[int, list[int]] = defaultdict(list)
        self._profiling: set[int] = set()
        self._measurements = Measurements(study, executor, self.places)
        self._data_seed = data_seed(study.job, study.space)
        self._losses: Counter[str] = Counter()  # by worker, since anything went well
        self._error: StudyError | None = None
        self._front: list[int] = []
        self._renewed = clock()
        self.stop_requested = False
        trained = sum(trial.kind == "evaluate" for trial in study.trials.values())
        self.budget = Budget(
            self.job.search, used_trials=trained, used_s=study.store.study().elapsed_s, clock=clock
        )
        self._reconcile()

    def run(self) -> str:
        """Search until the budget is used, the space is exhausted or a stop is requested; says which."""
        self.study.store.renew(self.budget.elapsed_s)  # from now on it runs, for everybody who looks
        while not self.stop_requested:
            self._dispatch()
            if not (self.running or self._waiting or self._profiling) and self.budget.end_reason:
                break
            self._handle_all(POLL_S)
            for failure in self._dispatcher.give_up_on_hanging():
                self._finish(failure)
            self._renew()
            self._on_change(self)
        if self.stop_requested:
            self._handle_all(0)
            self._release()
        self.study.store.renew(self.budget.elapsed_s)
        return "stopped" if self.stop_requested else (self.budget.end_reason or "done")

    def request_stop(self) -> None:
        """End the loop soon; running trials go back to the queue, to be resumed from their last epoch."""
        self.stop_requested = True

    def progress(self) -> Progress:
        """Where the search stands, for live views."""
        return progress_of(self)

    def _past(self) -> Iterator[Past]:
        for trial in self.study.trials.values():
            source = self.study.trials[trial.same_as] if trial.same_as is not None else trial
            told = trial.kind == "rejected" or self._has_all_figures(source)
            values, violation = self.study.told_values(trial) if told else (None, -1.0)
            asked = Asked(number=trial.number, draw=trial.draw, sampler_state=trial.sampler_state)
            yield Past(asked=asked, values=values, violation=violation)

    def _reconcile(self) -> None:
        """Pick up what an earlier driver left: untold results, unmeasured models, trials without a worker."""
        unmeasured = []
        for trial in list(self.study.trials.values()):
            if trial.kind == "duplicate" and trial.same_as is not None:
                if not self._has_all_figures(self.study.trials[trial.same_as]):
                    self._attached[trial.same_as].append(trial.number)
            elif trial.kind != "evaluate":
                continue
            elif trial.outcome is None:
                if trial.state == "leased":  # a driver's death costs the candidate no attempt
                    self.study.store.unlease_trial(trial.number, max(0, trial.attempts - 1))
                    self.study.update(trial.number, state="asked", attempts=max(0, trial.attempts - 1))
                self._waiting.append(trial.number)
            elif not self._has_all_figures(trial):
                unmeasured.append(trial.number)
            elif trial.state == "result":
                self.study.store.set_told(trial.number)  # the rebuilt sampler knows it already
                self.study.update(trial.number, state="told")
        for number in unmeasured:  # once all repetitions are attached: what is known already is told at once
            self._measure(number)
        self._front = [trial.number for trial in self.study.front]
        kept = {*self._front, *self._waiting, *self._profiling}
        self._drop_weights(self._places_there() - kept)  # the last driver may have died before it was tidy
        for number in self._front:
            forget_checkpoints(self.places.trial(number))
        if self._front:  # the last driver may have died between a tell and its message
            self.study.store.enqueue("front", {"members": self._front})

    def _dispatch(self) -> None:
        for worker in self._dispatcher.idle_workers():
            number = self._waiting.popleft() if self._waiting else self._ask()
            if number is None:
                return
            self._start(worker, number)

    def _ask(self) -> int | None:
        """The number of the next candidate to train; None when there is none now."""
        for _ in range(FRUITLESS_PER_DISPATCH):
            if self.budget.end_reason or self.stop_requested:
                return None
            asked = self._asker.ask()
            candidate = self.study.space.decode(asked.draw)
            trial = TrialRecord(
                number=asked.number,
                state="asked",
                kind="evaluate",
                candidate=candidate,
                cost=cost_of(candidate),
                draw=asked.draw,
                sampler_state=asked.sampler_state,
                asked_at=time.time(),
            )
            broken = violations(known_figures(trial.cost, self.job), self.job.constraints)
            before = self.study.trained_before(candidate.hash)
            if broken:
                self._reject(trial, broken)
            elif before is not None:
                self._repeat(trial, before)
            else:
                self.budget.count_trial()
                self.study.add(trial)
                return trial.number
        return None

    def _reject(self, trial: TrialRecord, broken: dict[str, float]) -> None:
        self.budget.count_fruitless()
        self.study.add(trial.model_copy(update={"kind": "rejected", "state": "told", "note": "; ".join(broken)}))
        self._tell_sampler(trial.number, *self.study.told_values(self.study.trials[trial.number]))

    def _repeat(self, trial: TrialRecord, before: TrialRecord) -> None:
        self.budget.count_fruitless()
        self.study.add(trial.model_copy(update={"kind": "duplicate", "state": "told", "same_as": before.number}))
        if self._has_all_figures(before):
            self._tell_sampler(trial.number, *self.study.told_values(self.study.trials[trial.number]))
        else:
            self._attached[before.number].append(trial.number)

    def _start(self, worker: str, number: int) -> None:
        trial = self.study.trials[number]
        attempt = trial.attempts + 1
        self.study.store.lease_trial(number, worker, attempt)
        self.study.update(number, state="leased", worker=worker, attempts=attempt)
        self._dispatcher.start(
            worker,
            TrialRequest(
                trial=number,
                attempt=attempt,
                candidate=trial.candidate,
                train=trial.candidate.training.applied_to(self.job.train),
                evaluate=self.job.evaluate,
                seed=trial_seed(self.job.seed, number),
                data_seed=self._data_seed,
                data_fingerprint=self.study.data.fingerprint,
                artifact_dir=self.places.trial(number),
                accuracy_to_beat=self.study.accuracy_to_beat(trial),
            ),
        )

    def _handle_all(self, timeout_s: float) -> None:
        """Take in all that has happened before any of it ends the search: nobody tells it again.

        Raises:
            StudyError: No trial would fare better now.
        """
        for event in self.executor.poll(timeout_s):
            self._handle(event)
        if self._error is not None:
            raise self._error

    def _handle(self, event: Event) -> None:
        noted = self._dispatcher.note(event)
        if isinstance(event, EpochDone):
            if noted:
                self._losses.clear()
        elif isinstance(event, TrialDone):
            outcome = event.outcome
            self._losses.clear()
            if not (isinstance(outcome, TrialFailure) and outcome.retryable):
                self._finish(outcome)
            elif self._may_retry(outcome.trial):
                self._requeue(outcome.trial)
            else:  # the candidate is innocent, and the next one would fare no better
                self._end(outcome.trial, _what_fails(outcome, self.places))
        elif isinstance(event, WorkerLost):
            self._losses[event.worker] += 1
            if self._workers_only_die():
                why = f"{self._losses.total()} workers were lost in a row, the last one because: {event.reason}"
                self._end(event.trial, f"{why}; mend the machine")
            elif self._may_retry(event.trial):
                self._requeue(event.trial)
            else:
                self._finish(
                    TrialFailure(trial=event.trial, stage="worker", failure="worker_lost", message=event.reason)
                )
        elif isinstance(event, WorkerTaken):
            self._requeue(event.trial, attempts=self.study.trials[event.trial].attempts - 1)
        elif isinstance(event, ProfileDone):
            self._profiled(event)

    def _workers_only_die(self) -> bool:
        """Whether the fault is theirs, though candidates would be blamed; a node takes all of its own along."""
        return self._losses.total() >= max(MAX_LOSSES_IN_A_ROW, MAX_LOSSES_EACH * len(self._losses))

    def _end(self, number: int, why: str) -> None:
        """Let the search end with an error once all events are handled; the trial waits for a resume."""
        self.study.store.unlease_trial(number, 0)
        self._error = self._error or StudyError(f"{why}, then: {resume_command(self.out)}")

    def _may_retry(self, number: int) -> bool:
        return self.study.trials[number].attempts <= self.job.search.max_retries

    def _requeue(self, number: int, attempts: int | None = None) -> None:
        attempts = self.study.trials[number].attempts if attempts is None else attempts
        self.study.store.unlease_trial(number, attempts)
        self.study.update(number, state="asked", worker="", attempts=attempts)
        self._waiting.append(number)

    def _finish(self, outcome: TrialResult | TrialFailure) -> None:
        """Store, measure if an objective needs it, tell."""
        if not self.study.store_outcome(outcome.trial, outcome):
            return
        if self._has_all_figures(self.study.trials[outcome.trial]):
            self._tell(outcome.trial)
        else:
            self._measure(outcome.trial)

    def _measure(self, number: int) -> None:
        known = self._measurements.begin(number, self.job.targets[0])
        if known is None:
            self._profiling.add(number)
        else:
            self.study.store_profile(number, known)
            self._tell(number)

    def _profiled(self, event: ProfileDone) -> None:
        self._profiling.discard(event.trial)
        if event.profile is not None:
            self._measurements.end(event.trial, self.job.targets[0], event.profile)
            self.study.store_profile(event.trial, event.profile)
        else:
            self.study.store_unmeasured(event.trial, event.reason or "the measurement failed")
        self._tell(event.trial)

    def _tell(self, number: int) -> None:
        values, violation = self.study.told_values(self.study.trials[number])
        for one in (number, *self._attached.pop(number, [])):
            self._tell_sampler(one, values, violation)
        self.study.store.set_told(number)
        self.study.update(number, state="told")
        front = [trial.number for trial in self.study.front]
        self._drop_weights({number, *self._front} - {*front})
        if number in front:
            forget_checkpoints(self.places.trial(number))
        if front != self._front:
            self._front = front
            self.study.store.enqueue("front", {"members": front})

    def _tell_sampler(self, number: int, values: list[float], violation: float) -> None:
        self._asker.tell(number, values, violation)
        if self._mirror is not None:
            self._mirror.add(number)

    def _drop_weights(self, dominated: Iterable[int]) -> None:
        """Keep weights of front members only; dominated models can be trained again from their seed.

        Whole places go, so that the next driver finds few to look at. What a store refuses to delete now, it does.
        """
        for number in dominated:
            try:
                discard(self.places.trial(number))
            except OSError as error:
                log.warning("files of trial %d, which are not needed, could not be deleted: %s", number, error)

    def _places_there(self) -> set[int]:
        """Trials that have files."""
        try:
            return {int(name) for name in names_in(self.places.trials) if name.isdecimal()}
        except OSError as error:
            log.warning("files that are not needed could not be looked for: %s", error)
            return set()

    def _has_all_figures(self, trial: TrialRecord) -> bool:
        """Whether nothing about the trial is still to be measured."""
        if trial.outcome is None:
            return False
        if not trial.succeeded or not self.job.needs_profile or trial.unmeasured:
            return True
        return objective_values(trial.figures, self.job) is not None and bool(trial.profiles)

    def _renew(self) -> None:
        if self._clock() - self._renewed > RENEW_S:
            self.study.store.renew(self.budget.elapsed_s)
            self._renewed = self._clock()

    def _release(self) -> None:
        """Put running trials back; their epoch checkpoints stay."""
        for running in self.running.values():
            trial = self.study.trials[running.trial]
            self.study.store.unlease_trial(running.trial, max(0, trial.attempts - 1))
        self.running.clear()


def _what_fails(failure: TrialFailure, places: Places) -> str:
    """Why trials fail that are innocent, and what to do about it."""
    if failure.failure == "storage":
        why = f"trial {failure.trial} cannot be stored in {places.root}: {failure.message}"
        return f"{why}; make room or mend the folder"
    return f"trial {failure.trial} cannot be trained on any worker: {failure.message}; mend that"


def asking_recipe(job: JobSpec, space: SearchSpace) -> TrainSpec | None:
    """A recipe whose teacher is asked once for all trials; None where no candidate has one."""
    asking = (recipe for recipe in recipes(space, job.train).values() if recipe.distill.is_active)
    return next((recipe for recipe in asking if recipe.distill.cache), None)


def data_seed(job: JobSpec, space: SearchSpace) -> int | None:
    """Seed of order and augmentation for all trials of a job whose teacher is asked once; None otherwise."""
    return None if asking_recipe(job, space) is None else trial_seed(job.seed, DATA_SEED_OFFSET)


def trial_seed(study_seed: int, number: int) -> int:
    """Seed of one trial, from (study seed, trial number)."""
    return int(np.random.SeedSequence([study_seed, number]).generate_state(1)[0] % 2**31)
