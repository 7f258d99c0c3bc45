"""What the driver needs from whoever runs trials, and the simplest one: here and now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from vitsearch.candidate import Architecture
from vitsearch.config.train import Autocast
from vitsearch.messages import (
    EpochReport,
    MachineFacts,
    Profile,
    ProfileRequest,
    TrialFailure,
    TrialRequest,
    TrialResult,
)


@dataclass(frozen=True, kw_only=True)
class TrialDone:
    """A trial ended on its worker."""

    worker: str
    outcome: TrialResult | TrialFailure


@dataclass(frozen=True, kw_only=True)
class WorkerLost:
    """A worker died, taking its trial with it; a new one of the same name takes its place."""

    worker: str
    trial: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class WorkerTaken:
    """A worker had to make room; its trial is innocent and goes on elsewhere from its last epoch."""

    worker: str
    trial: int


@dataclass(frozen=True, kw_only=True)
class EpochDone:
    """A trial made progress."""

    worker: str
    report: EpochReport


@dataclass(frozen=True, kw_only=True)
class WorkerRests:
    """A worker makes no progress because something is measured on its machine."""

    worker: str


@dataclass(frozen=True, kw_only=True)
class ProfileDone:
    """A measurement ended; ``profile`` is None where it failed, for the given reason."""

    trial: int
    target: str
    profile: Profile | None
    reason: str = ""


Event = TrialDone | WorkerLost | WorkerTaken | WorkerRests | EpochDone | ProfileDone


class Executor(Protocol):
    """Runs trials and measurements somewhere.

    One trial runs on one worker at a time. Until the executor is closed, every measurement ends in exactly one
    ``ProfileDone``, and every submitted trial in exactly one ``TrialDone``, ``WorkerLost`` or ``WorkerTaken``,
    unless its worker is restarted.
    """

    def idle_workers(self) -> list[str]:
        """Names of workers that could take a trial now."""
        ...

    def submit(self, worker: str, request: TrialRequest) -> None:
        """Start a trial on an idle worker; returns at once."""
        ...

    def submit_profile(self, request: ProfileRequest) -> None:
        """Queue a measurement; returns at once. The target is held exclusively while measuring."""
        ...

    def facts_of(self, target: str, wait_s: float = 0.0) -> MachineFacts | None:
        """What a target's machine can measure; None while it has not answered, for which it gets some time."""
        ...

    def waits_for(self) -> str:
        """What measurements wait for, in words; empty while they do not wait."""
        ...

    def restart(self, worker: str, reason: str) -> None:
        """Replace a worker that hangs; no event tells of its trial any more."""
        ...

    def fastest_autocast(self, architecture: Architecture, batch_size: int) -> Autocast:
        """The number format in which a worker trains such a network fastest; measured, takes seconds."""
        ...

    def poll(self, timeout_s: float) -> list[Event]:
        """What has happened since the last call; waits up to ``timeout_s`` for something to."""
        ...

    def close(self) -> None:
        """Stop workers; trials still running are abandoned."""
        ...


class InlineExecutor:
    """One worker in the calling process, for tests and for looking at a trial with a debugger.

    Args:
        run: Turns a request into an outcome.
        profile: Turns a profile request into a profile.
    """

    def __init__(
        self,
        run: Callable[[TrialRequest], TrialResult | TrialFailure],
        profile: Callable[[ProfileRequest], Profile] | None = None,
    ) -> None:
        self._run = run
        self._profile = profile
        self._events: list[Event] = []

    def idle_workers(self) -> list[str]:
        """The one worker, once its last outcome has been fetched."""
        return [] if self._events else ["inline"]

    def submit(self, worker: str, request: TrialRequest) -> None:
        """Run the trial to its end."""
        self._events.append(TrialDone(worker=worker, outcome=self._run(request)))

    def submit_profile(self, request: ProfileRequest) -> None:
        """Measure to the end."""
        profile = self._profile(request) if self._profile else None
        self._events.append(ProfileDone(trial=request.trial, target=request.target.name, profile=profile))

    def facts_of(self, target: str, wait_s: float = 0.0) -> MachineFacts | None:  # noqa: ARG002
        """Not told."""
        return None

    def waits_for(self) -> str:
        """Nothing waits here."""
        return ""

    def restart(self, worker: str, reason: str) -> None:
        """Nothing hangs here."""

    def fastest_autocast(self, architecture: Architecture, batch_size: int) -> Autocast:  # noqa: ARG002
        """Plain float32."""
        return "fp32"

    def poll(self, timeout_s: float) -> list[Event]:  # noqa: ARG002
        """What ``submit`` has found."""
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """Nothing to stop."""
