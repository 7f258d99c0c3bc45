"""What the driver relies on, of every executor: run each of ``EXECUTOR_CHECKS`` with an idle one of yours.

The executor trains for real, on a data set of 8 x 8 grey images in ten classes. A failed check raises
``AssertionError``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from vitsearch.candidate import Architecture, Candidate
from vitsearch.config import TargetSpec, TrainSpec
from vitsearch.messages import ProfileRequest, TrialFailure, TrialRequest, TrialResult
from vitsearch.search import Event, Executor, ProfileDone, TrialDone

CANDIDATE = Candidate(
    architecture=Architecture(image_size=8, in_chans=1, num_classes=10, patch_size=4, width=16, depth=1, heads=2)
)


def small_trial(folder: Path, fingerprint: str, *, number: int = 0, epochs: int = 1) -> TrialRequest:
    """A trial of about a second; its weights go to ``folder / str(number)``."""
    return TrialRequest(
        trial=number,
        candidate=CANDIDATE,
        train=TrainSpec(epochs=epochs, autocast="fp32"),
        seed=1,
        data_fingerprint=fingerprint,
        artifact_dir=str(folder / str(number)),
    )


def small_measurement(folder: Path, *, number: int = 0) -> ProfileRequest:
    """A measurement of what ``small_trial`` trained."""
    target = TargetSpec(name="local", warmup=1, repeats=3)
    return ProfileRequest(trial=number, artifact_dir=str(folder / str(number)), candidate=CANDIDATE, target=target)


def events_until(executor: Executor, last: type[Event], timeout_s: float = 180) -> list[Event]:
    """Everything that happens up to the first event of a kind."""
    found: list[Event] = []
    deadline = time.monotonic() + timeout_s
    while not any(isinstance(event, last) for event in found):
        assert time.monotonic() < deadline, found
        found += executor.poll(0.5)
    return found


def outcome_of(events: list[Event]) -> TrialResult | TrialFailure:
    """The outcome of the one trial that ended."""
    (done,) = (event for event in events if isinstance(event, TrialDone))
    return done.outcome


def check_trial(executor: Executor, fingerprint: str, folder: Path) -> None:
    """A trial occupies its worker, ends in one event, leaves its weights and frees the worker."""
    idle = executor.idle_workers()
    executor.submit(idle[0], small_trial(folder, fingerprint))
    assert executor.idle_workers() == idle[1:]
    outcome = outcome_of(events_until(executor, TrialDone))
    assert isinstance(outcome, TrialResult), outcome
    assert (folder / "0" / outcome.weights_file).is_file()
    assert executor.poll(0) == []
    assert sorted(executor.idle_workers()) == sorted(idle)


def check_failure(executor: Executor, fingerprint: str, folder: Path) -> None:
    """A candidate that fails is an outcome, not an exception, and the worker goes on."""
    (worker, *_) = executor.idle_workers()
    executor.submit(worker, small_trial(folder, f"not {fingerprint}"))
    outcome = outcome_of(events_until(executor, TrialDone))
    assert isinstance(outcome, TrialFailure), outcome
    assert outcome.failure == "other_data", outcome
    executor.submit(worker, small_trial(folder, fingerprint, number=1))
    assert isinstance(outcome_of(events_until(executor, TrialDone)), TrialResult)


def check_measurement(executor: Executor, fingerprint: str, folder: Path) -> None:
    """A measurement ends in one event; nothing else ran beside it."""
    executor.submit(executor.idle_workers()[0], small_trial(folder, fingerprint))
    events_until(executor, TrialDone)
    executor.submit_profile(small_measurement(folder))
    (done,) = events_until(executor, ProfileDone)
    assert isinstance(done, ProfileDone)
    assert done.profile is not None, done.reason
    assert done.profile.latency_ms_p50 > 0
    assert not done.profile.conditions.contended
    assert executor.poll(0) == []


def check_autocast(executor: Executor, fingerprint: str, folder: Path) -> None:  # noqa: ARG001
    """An autocast is chosen."""
    found = executor.fastest_autocast(CANDIDATE.architecture, 32)
    assert found in {"fp32", "bf16_fused", "bf16_unfused"}, found


EXECUTOR_CHECKS: tuple[Callable[[Executor, str, Path], None], ...] = (
    check_trial,
    check_failure,
    check_measurement,
    check_autocast,
)
