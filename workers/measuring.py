"""Measurements of one target, one after the other.

A measurement goes through two stages: its model is exported on the driver's node, then it runs on the target's,
where trainers rest for it (``turns``). While a target is away its requests wait.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import ray

from vitsearch.errors import StudyError
from vitsearch.messages import MachineFacts, Profile, ProfileRequest
from vitsearch.search import ProfileDone
from workers.deaths import DEATHS, reason_of
from workers.desk import Desk, has_died

PROFILE_TIMEOUT_S = 900.0
AWAY_AFTER_S = 15.0  # a process on a target that is there has answered by then
MOST_DEATHS = 5
RESTART_AFTER_S = 10.0  # a node that is going down takes new processes for a while, and them along
MOST_ATTEMPTS = 3  # a model that takes its target down each time must not do so for ever


@dataclass(kw_only=True)
class _Measurement:
    """One request on its way."""

    request: ProfileRequest
    attempt: int = 1
    exports: int = 1
    not_before: float = 0.0
    since: float = 0.0
    exported: Any = None  # reference of its files
    task: Any = None  # reference of the measurement itself


@dataclass(kw_only=True)
class _Post:
    """A process that is to measure, on a node that may not be there yet."""

    place: str
    actor: Any
    answer: Any  # reference of its facts


@dataclass(kw_only=True)
class Target:
    """The profiler of one target and what it has to do.

    Attributes:
        name: The target.
        start: Starts a profiler on a target; returns its actor, which may wait for its node.
        facts: What the target's machine can measure; None until it has answered.
    """

    name: str
    start: Callable[[str], Any]
    facts: MachineFacts | None = None
    _queue: deque[_Measurement] = field(default_factory=deque)
    _posts: list[_Post] = field(default_factory=list)  # one, once it has answered; before that the fallback's, too
    _current: _Measurement | None = None
    _deaths: int = 0  # of processes at their start, one after the other
    _why: str = ""
    _not_before: float = 0.0  # when a process is started again after one that died
    _since: float = field(default_factory=time.monotonic)  # when it was there last

    def add(self, request: ProfileRequest) -> None:
        """Queue a measurement."""
        self._queue.append(_Measurement(request=request))

    @property
    def stands_in(self) -> bool:
        """Whether it is the fallback that has answered."""
        return self.facts is not None and self._posts[0].place != self.name

    @property
    def waits_for(self) -> str:
        """What its measurements wait for, in words."""
        seconds = time.monotonic() - self._since
        if self.facts is not None or not self._queue or seconds < AWAY_AFTER_S:
            return ""
        names = " or ".join(post.place for post in self._posts) or self.name
        return f"waiting for target {names}: away for {seconds:.0f} s, {len(self._queue)} to measure"

    def pending(self) -> list[Any]:
        """References whose arrival brings the measurement on."""
        current = self._current
        if current is None:
            return [post.answer for post in self._posts] if self._queue and self.facts is None else []
        return _not_ready([current.exported if current.task is None else current.task])

    def find(self) -> bool:
        """Start the profiler if there is none; returns whether its machine has answered."""
        if time.monotonic() < self._not_before:
            return False
        if self.facts is None and self.name not in {post.place for post in self._posts}:
            self._post(self.name)
        for post in list(self._posts) if self.facts is None else []:
            if _not_ready([post.answer]):
                continue
            try:
                self.facts = MachineFacts.model_validate_json(ray.get(post.answer))
            except (ray.exceptions.RayError, ValueError) as error:
                self._dismiss(post)  # and again from the start
                self._deaths, self._why = self._deaths + 1, reason_of(error)
            else:
                self._deaths = 0
                for other in [one for one in self._posts if one is not post]:
                    self._dismiss(other)
                break
        return self.facts is not None

    def wait(self, timeout_s: float) -> None:
        """Give the profiler time to answer."""
        if not self.find() and self._posts:
            ray.wait([post.answer for post in self._posts], timeout=timeout_s)
            self.find()

    def advance(self, desk: Desk) -> ProfileDone | None:
        """Go as far as possible without waiting.

        Args:
            desk: Makes a request's files.

        Returns:
            The end of a measurement, if it has come.

        Raises:
            StudyError: The store that models are read from, or a disk they are written to, has failed for a while.
        """
        current = self._current
        if current is None:
            return self._next(desk)
        if current.task is None and not _not_ready([current.exported]):
            if has_died(current.exported):
                return self._export_again(current, "the process that exports models dies")
            fault = _storage_fault(current.exported)
            if fault is not None:
                self._wait_for_storage(current, fault)
                return None
            self._run(current)
        if current.task is not None and not _not_ready([current.task]):
            return self._end(current)
        if time.monotonic() - current.since > PROFILE_TIMEOUT_S:
            return self._give_up_on_hanging(current, desk)
        return None

    def close(self) -> None:
        """Stop the process."""
        self._drop()

    def _next(self, desk: Desk) -> ProfileDone | None:
        if not self._queue or time.monotonic() < self._queue[0].not_before:
            return None
        if not self.find():
            if self._deaths >= MOST_DEATHS:
                self._deaths = 0
                reason = f"its process on target {self.name!r} dies at the start: {self._why}"
                return self._failed(self._queue.popleft(), reason)
            return self._fall_back()
        self._current = self._queue.popleft()
        self._current.since, self._current.exported = time.monotonic(), desk.export(self._asked(self._current))
        return None

    def _asked(self, current: _Measurement) -> ProfileRequest:
        """What is asked for here: a fallback measures all of it, as known figures are of another machine."""
        return current.request.model_copy(update={"known": ()}) if self.stands_in else current.request

    def _run(self, current: _Measurement) -> None:
        request = self._asked(current).model_dump_json()
        current.since, current.task = time.monotonic(), self._posts[0].actor.run.remote(request, current.exported)

    def _fall_back(self) -> ProfileDone | None:
        """What the job says about a target that is away for too long."""
        target, away_s = self._queue[0].request.target, time.monotonic() - self._since
        if target.wait_s is None or away_s <= target.wait_s:
            return None
        if target.fallback is None:
            return self._failed(
                self._queue.popleft(), f"target {self.name!r} was away for {away_s:.0f} s (wait_s)"
            )
        if target.fallback not in {post.place for post in self._posts}:
            self._post(target.fallback)  # whichever answers first measures
        return None

    def _post(self, place: str) -> None:
        actor = self.start(place)
        self._posts.append(_Post(place=place, actor=actor, answer=actor.facts.remote()))

    def _dismiss(self, post: _Post) -> None:
        ray.kill(post.actor)
        self._posts.remove(post)

    def _drop(self) -> None:
        for post in list(self._posts):
            self._dismiss(post)
        if self.facts is not None:
            self._since = time.monotonic()
        self.facts = None

    def _end(self, current: _Measurement) -> ProfileDone | None:
        self._current = None
        try:
            profile = Profile.model_validate_json(ray.get(current.task))
        except TimeoutError:  # others measure there
            self._current = current
            self._run(current)
            return None
        except FileNotFoundError as error:  # of the exporter: there is no such model
            return self._failed(current, reason_of(error))
        except OSError as error:  # its disk is full
            self._wait_for_storage(current, error)
            return None
        except DEATHS as error:
            self._drop()
            self._not_before = time.monotonic() + RESTART_AFTER_S
            if self._again(current):
                return None
            return self._failed(current, reason_of(error))
        except ray.exceptions.RayError as error:
            return self._failed(current, reason_of(error))
        except ValueError:
            return self._failed(current, f"what target {self.name!r} answers is no measurement")
        if self.stands_in:
            profile = _measured_by(self._posts[0].place, profile)
        return ProfileDone(trial=current.request.trial, target=self.name, profile=profile)

    def _give_up_on_hanging(self, current: _Measurement, desk: Desk) -> ProfileDone | None:
        self._current = None
        within = f"within {PROFILE_TIMEOUT_S:g} s"
        if current.task is None:
            desk.close()
            return self._export_again(current, f"the process that exports models does not answer {within}")
        self._drop()
        return (
            None
            if self._again(current)
            else self._failed(current, f"no answer from target {self.name!r} {within}")
        )

    def _export_again(self, current: _Measurement, reason: str) -> ProfileDone | None:
        """From the start, which costs the target no attempt: it has done nothing wrong."""
        self._current = None
        if current.exports >= MOST_DEATHS:
            return self._failed(current, reason)
        self._queue.appendleft(replace(current, exports=current.exports + 1, exported=None, task=None))
        return None

    def _wait_for_storage(self, current: _Measurement, fault: OSError) -> None:
        """The candidate and the target are innocent, and the next one would fare no better."""
        self._current = None
        if current.exports >= MOST_DEATHS:
            raise StudyError(
                f"trial {current.request.trial} cannot be measured on {self.name}: {reason_of(fault)}; "
                f"mend the store or make room there, then resume"
            )
        again = replace(current, exports=current.exports + 1, exported=None, task=None)
        again.not_before = time.monotonic() + RESTART_AFTER_S
        self._queue.appendleft(again)

    def _again(self, one: _Measurement) -> bool:
        """Queue a measurement once more, unless that has been done often enough."""
        if one.attempt >= MOST_ATTEMPTS:
            return False
        self._queue.appendleft(_Measurement(request=one.request, attempt=one.attempt + 1))
        return True

    def _failed(self, one: _Measurement, reason: str) -> ProfileDone:
        return ProfileDone(trial=one.request.trial, target=self.name, profile=None, reason=reason)


def _measured_by(place: str, profile: Profile) -> Profile:
    conditions = profile.conditions.model_copy(update={"measured_by": place})
    others = tuple(_measured_by(place, one) for one in profile.others)
    return profile.model_copy(update={"conditions": conditions, "others": others})


def _storage_fault(answer: Any) -> OSError | None:
    """What an exporter could not read or write; a file that is not there is the trial's own fault."""
    try:
        ray.get(answer)
    except FileNotFoundError:
        return None
    except OSError as error:
        return error
    except ray.exceptions.RayError:
        return None
    return None


def _not_ready(references: list[Any]) -> list[Any]:
    return list(ray.wait(references, num_returns=len(references), timeout=0)[1]) if references else []
