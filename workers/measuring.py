"""Measurements of one target, one after the other, while trainers on the same machine rest."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray

from vitsearch.messages import Profile, ProfileRequest
from vitsearch.search import ProfileDone
from workers.profiler import Profiler
from workers.resources import TARGET_SHARE, place_of_target, reason_of
from workers.shared_data import SharedData

PROFILE_TIMEOUT_S = 900.0


@dataclass(kw_only=True)
class _Measurement:
    """One request on its way: trainers come to rest, then it runs."""

    request: ProfileRequest
    since: float
    rests: list[Any]  # references of what trainers answer once they rest
    task: Any = None  # reference of the measurement itself


@dataclass(kw_only=True)
class Target:
    """The profiler of one target and what it has to do.

    Attributes:
        name: The target.
        data: The images in the object store; None measures on noise.
        queue: Requests that wait.
        machine: Host name of the target's node; None until it has answered.
    """

    name: str
    data: SharedData | None = None
    queue: deque[ProfileRequest] = field(default_factory=deque)
    machine: str | None = None
    _actor: Any = None
    _machine_ref: Any = None
    _current: _Measurement | None = None
    _since: float = 0.0

    @property
    def is_active(self) -> bool:
        """Whether anything is being measured or waits for it."""
        return bool(self.queue or self._current)

    def pending(self) -> list[Any]:
        """References whose arrival brings the measurement on."""
        if self._current is None:
            return [self._machine_ref] if self._machine_ref is not None and self.queue else []
        return _not_ready(self._current.rests if self._current.task is None else [self._current.task])

    def advance(self, hold: Callable[[str], list[Any]]) -> ProfileDone | None:
        """Go as far as possible without waiting.

        Args:
            hold: Asks busy trainers of a machine to rest; returns references of their answers.

        Returns:
            The end of a measurement, if it has come.
        """
        if not self.is_active:
            return None
        if self._current is None:
            if not self._find_machine():
                return self._give_up(self.queue[0], self._since)
            assert self.machine is not None
            request = self.queue.popleft()
            self._current = _Measurement(request=request, since=time.monotonic(), rests=hold(self.machine))
        current = self._current
        if current.task is None and not _not_ready(current.rests):
            contended = not all(_at_rest(answer) for answer in current.rests)
            request = current.request.model_copy(update={"contended": contended})
            current.task = self._actor.run.remote(request.model_dump_json())
        if current.task is not None and not _not_ready([current.task]):
            return self._end(current)
        return self._give_up(current.request, current.since)

    def close(self) -> None:
        """Stop the process."""
        if self._actor is not None:
            ray.kill(self._actor)
            self._actor, self._machine_ref, self.machine = None, None, None

    def _find_machine(self) -> bool:
        if self._actor is None:
            options = {"num_cpus": 0, "resources": {place_of_target(self.name): TARGET_SHARE}}
            shared = () if self.data is None else (self.data.images_ref, self.data.labels_ref, self.data.meta)
            self._actor = ray.remote(Profiler).options(**options).remote(*shared)
            self._machine_ref, self._since = self._actor.machine.remote(), time.monotonic()
        if self.machine is None and not _not_ready([self._machine_ref]):
            try:
                self.machine = ray.get(self._machine_ref)
            except ray.exceptions.RayError:
                self.close()  # and again from the start, until the time is over
        return self.machine is not None

    def _end(self, current: _Measurement) -> ProfileDone:
        profile, reason = None, ""
        try:
            profile = Profile.model_validate_json(ray.get(current.task))
        except ray.exceptions.RayError as error:
            reason = reason_of(error)
            if isinstance(error, ray.exceptions.RayActorError):
                self.close()
        except ValueError:
            reason = f"what target {self.name!r} answers is no measurement"
        self._current = None
        return ProfileDone(trial=current.request.trial, target=self.name, profile=profile, reason=reason)

    def _give_up(self, request: ProfileRequest, since: float) -> ProfileDone | None:
        """End a measurement that hangs, or that no node offers its target's resource for."""
        if time.monotonic() - since <= PROFILE_TIMEOUT_S:
            return None
        self.close()
        if self._current is None:
            self.queue.popleft()
        self._current = None
        reason = f"no answer from target {self.name!r} within {PROFILE_TIMEOUT_S:g} s"
        return ProfileDone(trial=request.trial, target=self.name, profile=None, reason=reason)


def _not_ready(references: list[Any]) -> list[Any]:
    return list(ray.wait(references, num_returns=len(references), timeout=0)[1]) if references else []


def _at_rest(answer: Any) -> bool:
    """What a trainer answered to ``pause``; a dead one does not compute."""
    try:
        return bool(ray.get(answer))
    except ray.exceptions.RayError:
        return True
