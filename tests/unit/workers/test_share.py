"""How studies share a cluster."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers import share
from workers.pool import STARTING_S
from workers.share import Claim, capacity_for, fair_shares, make_way


def claim(wanted: int = 100, priority: float = 1.0, since: float = 0.0, held: int = 0, **takes: float) -> Claim:
    return Claim(
        priority=priority, wanted=wanted, held=held, takes=takes or {"CPU": 1.0}, since=since, seen_at=0.0
    )


def shares(capacity: float, **claims: Claim) -> dict[str, int]:
    return fair_shares(claims, {"CPU": capacity})


def test_equal_studies_get_equal_shares_and_what_others_do_not_want():
    assert shares(12, a=claim(), b=claim()) == {"a": 6, "b": 6}
    assert shares(12, a=claim(2), b=claim(), c=claim()) == {"a": 2, "b": 5, "c": 5}
    assert shares(12, a=claim(2), b=claim(3)) == {"a": 2, "b": 3}
    assert shares(12) == {}


def test_priorities_are_weights():
    assert shares(12, a=claim(priority=2), b=claim()) == {"a": 8, "b": 4}
    assert shares(40, a=claim(priority=1000), b=claim())["b"] == 1, "nobody starves"


def test_what_a_trainer_takes_counts():
    assert shares(12, a=claim(CPU=2.0), b=claim()) == {"a": 3, "b": 6}


def test_the_scarcest_resource_counts():
    """The example of the paper on dominant resource fairness: three of one and two of the other."""
    found = fair_shares(
        {"a": claim(CPU=1.0, memory=4.0), "b": claim(CPU=3.0, memory=1.0)}, {"CPU": 9.0, "memory": 18.0}
    )
    assert found == {"a": 3, "b": 2}
    gpus = fair_shares({"a": claim(CPU=1.0, GPU=1.0), "b": claim(CPU=1.0, GPU=1.0)}, {"CPU": 64.0, "GPU": 4.0})
    assert gpus == {"a": 2, "b": 2}
    mixed = fair_shares({"a": claim(CPU=1.0, GPU=1.0), "b": claim()}, {"CPU": 8.0, "GPU": 2.0})
    assert mixed == {"a": 2, "b": 6}
    assert fair_shares({"a": claim(CPU=1.0, GPU=1.0)}, {"CPU": 8.0}) == {"a": 0}


def test_studies_take_turns_where_there_is_not_room_for_all():
    claims = {name: claim(since=number) for number, name in enumerate("abc")}
    found = [fair_shares(claims, {"CPU": 2.0}, turn) for turn in range(3)]
    assert found == [{"a": 1, "b": 1, "c": 0}, {"b": 1, "c": 1, "a": 0}, {"c": 1, "a": 1, "b": 0}]


@given(
    st.dictionaries(
        st.text("abcdef", min_size=1, max_size=3),
        st.builds(
            claim, wanted=st.integers(1, 20), priority=st.floats(0.1, 100), since=st.floats(0, 9),
            CPU=st.sampled_from([0.5, 1.0, 2.0, 3.0]),
        ),
        max_size=6,
    ),
    st.integers(0, 60),
    st.integers(0, 10),
)  # fmt: skip
def test_nothing_is_promised_twice_and_nothing_wanted_is_left_over(
    claims: dict[str, Claim], capacity: int, turn: int
):
    found = fair_shares(claims, {"CPU": float(capacity)}, turn)
    assert found.keys() == claims.keys()
    assert all(0 <= found[name] <= claims[name].wanted for name in claims)
    left = capacity - sum(found[name] * claims[name].takes["CPU"] for name in claims)
    assert left >= 0
    assert all(found[name] == one.wanted or one.takes["CPU"] > left for name, one in claims.items())
    if sum(one.takes["CPU"] for one in claims.values()) <= capacity:
        assert all(found.values())


def test_what_other_people_hold_is_not_shared():
    claims = {"a": claim(held=4), "b": claim(held=2)}
    assert capacity_for(claims, {"CPU": 3.0}, [{"CPU": 8.0}, {"CPU": 8.0}]) == {"CPU": 9.0}


def test_what_is_left_over_on_each_node_is_no_room():
    """Sixteen nodes of four processors hold sixteen trainers of three."""
    claims = {"a": claim(held=16, CPU=3.0), "b": claim(CPU=3.0)}
    capacity = capacity_for(claims, {"CPU": 16.0}, [{"CPU": 4.0}] * 16)
    assert capacity == {"CPU": 48.0}
    assert fair_shares(claims, capacity) == {"a": 8, "b": 8}


class Study:
    """Does as a driver does with its trainers, some of which wait for room."""

    def __init__(self, came_at: float) -> None:
        self.came_at = came_at
        self.placed = 0
        self.waiting: list[float] = [came_at]

    def held(self, now: float) -> int:
        return self.placed + sum(now - since < STARTING_S for since in self.waiting)

    def go_by(self, allowance: int, now: float, *, epoch_ends: bool) -> None:
        self.waiting = self.waiting[: max(0, allowance - min(self.placed, allowance))]
        self.waiting += [now] * max(0, allowance - self.placed - len(self.waiting))
        if epoch_ends:
            self.placed = min(self.placed, allowance)


@given(foreign=st.integers(0, 12), later_s=st.sampled_from([0.0, 100.0, 1000.0]))
def test_a_study_that_comes_later_gets_its_half_beside_other_peoples_work(foreign: int, later_s: float):
    a, b = Study(0.0), Study(later_s)
    for step in range(1500):
        now = 2.0 * step
        there = {name: one for name, one in (("a", a), ("b", b)) if one.came_at <= now}
        for one in there.values():
            while one.waiting and a.placed + b.placed + foreign < 16:
                one.waiting.pop(0)
                one.placed += 1
        free = {"CPU": 16.0 - foreign - a.placed - b.placed}
        claims = {name: claim(wanted=16, since=one.came_at, held=one.held(now)) for name, one in there.items()}
        found = fair_shares(claims, capacity_for(claims, free, [{"CPU": 16.0}]))
        for name, one in there.items():
            one.go_by(found[name], now, epoch_ends=step % 30 == 0)
    room = 16 - foreign
    assert a.placed + b.placed == room
    assert abs(a.placed - b.placed) <= 1


MINUTE_S = 60.0


def test_others_make_way_step_by_step_and_for_a_quarter_of_the_time():
    def left(minutes: float) -> int:
        found = make_way({"a": 8, "b": 1}, {"b": minutes * MINUTE_S})
        assert found["b"] == 1
        return found["a"]

    assert [left(minutes) for minutes in (0, 3.9, 4, 5, 6, 8.9, 9, 23.9)] == [8, 8, 8, 4, 0, 0, 8, 8]
    assert [left(minutes) for minutes in (24, 25, 26, 33.9, 34, 63.9, 64, 66)] == [8, 4, 0, 0, 8, 8, 8, 0]
    assert make_way({"a": 8, "b": 1}, {}) == {"a": 8, "b": 1}
    assert make_way({"a": 8, "b": 1, "c": 2}, {"b": 400.0, "c": 0.0}) == {"a": 0, "b": 1, "c": 2}


@dataclass
class OnNode:
    """A trainer that has a place."""

    node: int
    epoch_ends: float
    leaving: bool = False


class Driver:
    """A study whose trainers are on nodes, and leave at the end of an epoch."""

    def __init__(self, name: str, *, cpus: float, wanted: int, epoch_s: float, came_at: float = 0.0) -> None:
        self.name, self.cpus, self.wanted, self.epoch_s, self.came_at = name, cpus, wanted, epoch_s, came_at
        self.placed: list[OnNode] = []
        self.waiting: list[float] = []

    def held(self, now: float) -> int:
        return len(self.placed) + sum(now - since < STARTING_S for since in self.waiting)

    def go_by(self, allowance: int, now: float, rng: random.Random) -> None:
        staying = [one for one in self.placed if not one.leaving]
        for one in self.placed:
            if one.leaving and len(staying) < allowance:
                one.leaving = False
                staying.append(one)
        wait_for = max(0, allowance - len(staying))
        self.waiting = self.waiting[:wait_for] + [now] * (wait_for - len(self.waiting))
        for one in rng.sample(staying, max(0, len(staying) - allowance)):
            one.leaving = True
        for one in [one for one in self.placed if now >= one.epoch_ends]:
            one.epoch_ends += self.epoch_s
            if one.leaving:
                self.placed.remove(one)


class Nodes:
    """Whole nodes, what foreign work holds of them, and studies that ask the real actor for their shares."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, sizes: list[float], foreign: float = 0.0) -> None:
        self.sizes, self.foreign, self.now, self.rng = sizes, foreign, 0.0, random.Random(0)
        self.drivers: list[Driver] = []
        fake = SimpleNamespace(
            nodes=lambda: [{"Alive": True, "Resources": {"CPU": size}} for size in sizes],
            available_resources=lambda: {"CPU": sum(self.free(node) for node in range(len(sizes)))},
        )
        monkeypatch.setattr(share, "ray", fake)
        monkeypatch.setattr(share, "time", SimpleNamespace(time=lambda: self.now))
        monkeypatch.setattr(share.Shares, "_ask_for_nodes", lambda _: None)
        monkeypatch.setattr(share.Shares, "_tidy", lambda _: None)
        self.shares = share.Shares()

    def free(self, node: int) -> float:
        ours = sum(one.cpus for one in self.drivers for place in one.placed if place.node == node)
        return self.sizes[node] - self.foreign - ours

    def run(self, until: float, stop: Callable[[], bool] = lambda: False) -> None:
        while self.now < until and not stop():
            self.now += 2.0
            for one in self.drivers:
                if one.came_at <= self.now:
                    allowance = self.shares.claim(one.name, 1.0, one.wanted, one.held(self.now), {"CPU": one.cpus})
                    one.go_by(allowance, self.now, self.rng)
                    self._place(one)

    def _place(self, one: Driver) -> None:
        for _ in list(one.waiting):
            roomy = [node for node in range(len(self.sizes)) if self.free(node) >= one.cpus]
            if roomy:
                ends = self.now + self.rng.uniform(0, one.epoch_s)
                one.placed.append(OnNode(max(roomy, key=self.free), ends))
                one.waiting.pop(0)


@pytest.mark.parametrize("epoch_s", [5.0, 60.0, 1000.0, 4000.0])
@pytest.mark.parametrize(("nodes", "size", "cpus"), [(3, 4.0, 4.0), (8, 4.0, 3.0), (2, 16.0, 16.0)])
def test_a_study_of_larger_trainers_does_not_starve(
    nodes: int, size: float, cpus: float, epoch_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the other gave back lay on several nodes, a little on each."""
    cluster = Nodes(monkeypatch, [size] * nodes)
    small = Driver("a", cpus=1.0, wanted=int(nodes * size), epoch_s=epoch_s)
    large = Driver("b", cpus=cpus, wanted=1, epoch_s=epoch_s, came_at=600.0)
    cluster.drivers = [small, large]
    cluster.run(20 * (600.0 + epoch_s), lambda: bool(large.placed))
    assert large.placed, cluster.now
    cluster.run(cluster.now + 2 * epoch_s + 100)
    assert len(large.placed) == 1
    assert len([one for one in small.placed if not one.leaving]) >= int(nodes * size) - size


def test_who_makes_way_does_not_pass_for_one_that_starves(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no place either, and would be given all back at its next question, again and again."""
    cluster = Nodes(monkeypatch, [4.0, 4.0], foreign=1.0)
    small = Driver("a", cpus=1.0, wanted=6, epoch_s=4.0)
    cluster.drivers = [small, Driver("b", cpus=4.0, wanted=1, epoch_s=4.0)]
    trained = []
    while cluster.now < 900.0:
        cluster.run(cluster.now + 2.0)
        trained.append(bool(small.placed))
    changes = sum(before != after for before, after in itertools.pairwise(trained))
    assert not all(trained[100:])
    assert changes <= 4


def test_a_study_that_fits_nowhere_takes_at_most_a_quarter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Foreign work holds a processor of each node."""
    cluster = Nodes(monkeypatch, [4.0] * 3, foreign=1.0)
    small = Driver("a", cpus=1.0, wanted=12, epoch_s=10.0)
    cluster.drivers = [small, Driver("b", cpus=4.0, wanted=1, epoch_s=10.0)]
    trained = []
    for minute in range(4 + 20 + 40 + 80 + 160 + 320):  # five rounds
        cluster.run(60.0 * minute)
        trained.append(len(small.placed))
    assert sum(trained) / len(trained) >= 0.75 * 5 * 0.97
    assert min(trained[-320:]) == 0
