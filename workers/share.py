"""How studies share a cluster: an actor that all drivers ask, and that none of them owns."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray

NAMESPACE = "vitsearch"
NAME = "shares"
ASK_EVERY_S = 2.0
FORGET_AFTER_S = 20.0
TURN_S = 300.0


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What one study says of itself.

    Attributes:
        priority: Its weight against the others.
        wanted: Trainers it could use.
        held: Trainers it has or waits for.
        takes: What each of them takes, by Ray's resource names (``CPU``, ``GPU``).
        since: When it came.
        seen_at: When it last asked.
    """

    priority: float
    wanted: int
    held: int
    takes: Mapping[str, float]
    since: float
    seen_at: float


def fair_shares(claims: Mapping[str, Claim], capacity: Mapping[str, float], turn: int = 0) -> dict[str, int]:
    """Trainers for each study: weighted dominant-resource fairness, and at least one for each while there is room.

    One trainer at a time goes to the study whose dominant share, the largest part it has of any one resource, is
    smallest for its priority (Ghodsi et al., NSDI 2011). Where there is not even room for one each, studies take
    turns.

    Args:
        claims: By study.
        capacity: What there is for all of them, by resource.
        turn: Counts on; decides whose turn it is.

    Returns:
        Trainers by study; at most what it wants.
    """
    order = sorted(claims, key=lambda name: (claims[name].since, name))
    first = turn % len(order) if order else 0
    order = [*order[first:], *order[:first]]
    shares, left = dict.fromkeys(order, 0), dict(capacity)

    def give(name: str) -> bool:
        claim = claims[name]
        fits = all(left.get(one, 0.0) + 1e-9 >= amount for one, amount in claim.takes.items())
        if shares[name] >= claim.wanted or not fits:
            return False
        shares[name] += 1
        for one, amount in claim.takes.items():
            left[one] -= amount
        return True

    def dominant(name: str) -> tuple[float, float, int]:
        """Its dominant share for its priority, now and with one trainer more."""
        parts = (amount / capacity[one] for one, amount in claims[name].takes.items() if capacity.get(one))
        step = max(parts, default=0.0) / claims[name].priority
        return shares[name] * step, (shares[name] + 1) * step, order.index(name)

    for name in order:
        give(name)
    hungry = set(order)
    while hungry:
        poorest = min(hungry, key=dominant)
        if not give(poorest):
            hungry.remove(poorest)
    return shares


class Shares:
    """The actor that knows all studies of a cluster.

    It remembers nothing that the next round of questions would not tell it again, so it may die at any time.
    """

    def __init__(self) -> None:
        self._claims: dict[str, Claim] = {}
        self._requested = 0

    def claim(self, study: str, priority: float, wanted: int, held: int, takes: dict[str, float]) -> int:
        """Say what a study wants; returns how many trainers it should have."""
        now = time.time()
        before = self._claims.get(study)
        since = now if before is None else before.since
        self._claims[study] = Claim(
            priority=priority, wanted=wanted, held=held, takes=takes, since=since, seen_at=now
        )
        self._claims = {n: c for n, c in self._claims.items() if now - c.seen_at < FORGET_AFTER_S}
        self._ask_for_nodes()
        return fair_shares(self._claims, self._capacity(), int(now // TURN_S))[study]

    def leave(self, study: str) -> None:
        """A study has ended."""
        self._claims.pop(study, None)
        self._ask_for_nodes()

    def _capacity(self) -> dict[str, float]:
        """What is free or holds trainers of ours; what other people's work holds is not ours to share.

        A trainer that waits for room holds nothing yet and is counted all the same, since nobody tells which do;
        the total bounds that.
        """
        free, total = ray.available_resources(), ray.cluster_resources()
        capacity = {}
        for one in {one for claim in self._claims.values() for one in claim.takes}:
            ours = sum(claim.held * claim.takes.get(one, 0.0) for claim in self._claims.values())
            capacity[one] = min(float(total.get(one, 0.0)), float(free.get(one, 0.0)) + ours)
        return capacity

    def _ask_for_nodes(self) -> None:
        """Tell an autoscaler what would be used; where there is none, nobody listens."""
        from ray.autoscaler.sdk import request_resources

        wanted = sum(int(claim.wanted * claim.takes.get("CPU", 0.0)) for claim in self._claims.values())
        if wanted != self._requested:
            self._requested = wanted
            request_resources(num_cpus=wanted)


class Share:
    """One study's side: asks now and then, never waits, and goes by the last answer.

    Args:
        study: A name of the study that no other has.
        priority: Its weight against the others.
        at_most: Trainers it may use; None for as many as there is room for.
        takes: What each of them takes, by Ray's resource names.
    """

    def __init__(self, study: str, *, priority: float, at_most: int | None, takes: Mapping[str, float]) -> None:
        self._study, self._priority, self._at_most, self._takes = study, priority, at_most, dict(takes)
        self._shares: Any = None
        self._question: Any = None
        self._asked_at = -ASK_EVERY_S
        self.allowance = 1

    def refresh(self, held: int, busy: int, *, rests: bool) -> int:
        """How many trainers the study should have now.

        Args:
            held: Trainers that are there or on their way.
            busy: Those of them that train.
            rests: Whether the others have had nothing to do for a while.
        """
        if self._question is not None and ray.wait([self._question], timeout=0)[0]:
            try:
                self.allowance = int(ray.get(self._question))
            except ray.exceptions.RayError:
                self._shares = None  # it died with its node; the next one asks again
            self._question = None
        if self._question is None and time.monotonic() - self._asked_at > ASK_EVERY_S:
            self._asked_at = time.monotonic()
            if self._shares is None:
                self._shares = _shares()
            wanted = max(1, busy) if rests else self._most()
            self._question = self._shares.claim.remote(self._study, self._priority, wanted, held, self._takes)
        return self.allowance

    def leave(self) -> None:
        """The study needs no trainers any more."""
        if self._shares is not None:
            self._shares.leave.remote(self._study)

    def _most(self) -> int:
        if self._at_most is not None:
            return self._at_most
        there = ray.cluster_resources()
        fits = [int(there.get(one, 0.0) // amount) for one, amount in self._takes.items() if amount > 0]
        return max(1, min(fits, default=1))


def _shares() -> Any:
    options = {"name": NAME, "namespace": NAMESPACE, "lifetime": "detached", "get_if_exists": True, "num_cpus": 0}
    return ray.remote(Shares).options(**options, max_restarts=-1, max_task_retries=1).remote()
