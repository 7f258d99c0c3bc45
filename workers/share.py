"""How studies share a cluster: an actor that all drivers ask, and that none of them owns."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray

NAMESPACE = "vitsearch"
NAME = "shares"
ASK_EVERY_S = 2.0
FORGET_AFTER_S = 20.0
TURN_S = 300.0
HOLDS_FROM_S = 60.0  # as long as a trainer that starts passes for one that has a place (``pool.STARTING_S``)
STARVES_AFTER_S = 240.0  # a trainer that has a place may rest beside a measurement while it starts
GIVE_UP_ALL_IN_S = 120.0
TIDY_EVERY_S = 10.0
LEAVE_TIMEOUT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What one study says of itself.

    Attributes:
        priority: Its weight against the others.
        wanted: Trainers it could use.
        held: Trainers it has.
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


def make_way(shares: Mapping[str, int], waits_s: Mapping[str, float]) -> dict[str, int]:
    """Less for the others, where a study has had no place for a while: its trainers must be larger than theirs.

    What others give back may lie about in pieces on many nodes, and a trainer that takes more than any piece would
    wait for ever. So after four minutes they are left less and less, and after two more nothing, until it has a
    place: by then there are whole nodes. But their trainers leave at the end of an epoch only, and what stands in
    the way may not be theirs. So this lasts for five minutes, then they have their shares again for fifteen, and
    so on, each time twice as long: at some time longer than any epoch, and for a quarter of the time at most.

    Args:
        shares: Trainers by study, as ``fair_shares`` finds them.
        waits_s: How long studies without any place have waited for one, of those whose share it is.

    Returns:
        Trainers by study; of those that wait, as many as before.
    """
    left = min((_left_to_others(wait_s) for wait_s in waits_s.values()), default=1.0)
    return {name: share if name in waits_s else math.floor(share * left) for name, share in shares.items()}


def _left_to_others(wait_s: float) -> float:
    """The part of their shares that others keep."""
    since, lasts_s = wait_s - STARVES_AFTER_S, TURN_S
    while since >= 4 * lasts_s:
        since -= 4 * lasts_s
        lasts_s *= 2
    return max(0.0, 1.0 - since / GIVE_UP_ALL_IN_S) if 0 <= since < lasts_s else 1.0


def capacity_for(
    claims: Mapping[str, Claim], free: Mapping[str, float], nodes: Sequence[Mapping[str, float]]
) -> dict[str, float]:
    """What studies can share: what is free or holds trainers of theirs, not what other people's work holds.

    Args:
        claims: By study.
        free: What nobody holds, of the whole cluster, by resource.
        nodes: What each node has in all.

    Returns:
        By resource, without what is left over on a node beside as many of the smallest trainers as it holds.
    """
    capacity = {}
    for one in {one for claim in claims.values() for one in claim.takes}:
        smallest = min(claim.takes[one] for claim in claims.values() if claim.takes.get(one, 0.0) > 0)
        has = [node.get(one, 0.0) for node in nodes]
        usable = sum(math.floor(amount / smallest + 1e-9) * smallest for amount in has)
        ours = sum(claim.held * claim.takes.get(one, 0.0) for claim in claims.values())
        left_over = sum(has) - usable
        capacity[one] = min(usable, max(0.0, free.get(one, 0.0) - left_over) + ours)
    return capacity


class Shares:
    """The actor that knows all studies of a cluster.

    It remembers nothing that the next rounds of questions would not tell it again, so it may die at any time.
    """

    def __init__(self) -> None:
        self._claims: dict[str, Claim] = {}
        self._told: dict[str, int] = {}
        self._placeless_since: dict[str, float] = {}
        self._held_since: dict[str, float] = {}
        self._requested: int | None = None  # a predecessor may have asked for something
        self._lock = threading.Lock()
        threading.Thread(target=self._tidy, daemon=True).start()

    def claim(self, study: str, priority: float, wanted: int, held: int, takes: dict[str, float]) -> int:
        """Say what a study wants; returns how many trainers it should have."""
        now = time.time()
        with self._lock:
            before = self._claims.get(study)
            since = now if before is None else before.since
            self._claims[study] = Claim(
                priority=priority, wanted=wanted, held=held, takes=takes, since=since, seen_at=now
            )
            self._forget(now)
            self._ask_for_nodes()
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            free = ray.available_resources()
            shares = fair_shares(self._claims, capacity_for(self._claims, free, nodes), int(now // TURN_S))
            self._told[study] = make_way(shares, self._waits_s(shares, free, now))[study]
            return self._told[study]

    def leave(self, study: str) -> None:
        """A study has ended."""
        with self._lock:
            self._claims.pop(study, None)
            self._forget(time.time())
            self._ask_for_nodes()

    def _waits_s(self, shares: Mapping[str, int], free: Mapping[str, float], now: float) -> dict[str, float]:
        """How long those without any place have waited while there was room for one, in pieces.

        Who makes way has none either, but was told so.
        """
        for name, claim in self._claims.items():
            if claim.held:
                held_s = now - self._held_since.setdefault(name, now)
                if held_s > HOLDS_FROM_S:  # until then it may be one that only waits for room
                    self._placeless_since.pop(name, None)
            else:
                self._held_since.pop(name, None)
                is_room = all(free.get(one, 0.0) >= amount for one, amount in claim.takes.items())
                if self._told.get(name) and shares[name] and is_room:
                    self._placeless_since.setdefault(name, now)
        return {
            name: now - since
            for name, since in self._placeless_since.items()
            if shares[name] and not self._claims[name].held
        }

    def _tidy(self) -> None:
        """Where drivers are killed, nobody else takes their nodes back: an autoscaler keeps what was asked for."""
        while True:
            time.sleep(TIDY_EVERY_S)
            with self._lock, suppress(ray.exceptions.RayError, OSError):
                self._forget(time.time())
                self._ask_for_nodes()

    def _forget(self, now: float) -> None:
        self._claims = {n: c for n, c in self._claims.items() if now - c.seen_at < FORGET_AFTER_S}
        for notes in (self._told, self._placeless_since, self._held_since):
            for name in notes.keys() - self._claims.keys():
                notes.pop(name)

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
            held: Trainers that have a place on a node.
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
            with suppress(ray.exceptions.RayError):  # it forgets us anyway, a little later
                ray.get(self._shares.leave.remote(self._study), timeout=LEAVE_TIMEOUT_S)

    def _most(self) -> int:
        if self._at_most is not None:
            return self._at_most
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return max(1, sum(_num_fitting(node, self._takes) for node in nodes))


def _num_fitting(node: Mapping[str, float], takes: Mapping[str, float]) -> int:
    fits = [math.floor(node.get(one, 0.0) / amount + 1e-9) for one, amount in takes.items() if amount > 0]
    return min(fits, default=1)


def _shares() -> Any:
    options = {"name": NAME, "namespace": NAMESPACE, "lifetime": "detached", "get_if_exists": True, "num_cpus": 0}
    return ray.remote(Shares).options(**options, max_restarts=-1, max_task_retries=1).remote()
