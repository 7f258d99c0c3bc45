from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from vitsearch.profile import measure
from vitsearch.profile.measure import (
    call_for,
    measure_latency,
    peak_memory,
    release_gpu_memory,
    used_gpu_mb,
)

MB = 1_000_000


def clocked(monkeypatch: pytest.MonkeyPatch, seconds: Sequence[float]) -> tuple[Callable[[], None], list[int]]:
    """Calls that take so long by a clock of our own, and their count."""
    now, calls = [0.0], [0]

    def call() -> None:
        now[0] += seconds[calls[0] % len(seconds)]
        calls[0] += 1

    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])
    return call, calls


def test_latency_is_that_of_the_measured_calls(monkeypatch: pytest.MonkeyPatch):
    expected = np.arange(100, 110) / 1000
    call, calls = clocked(monkeypatch, expected)
    found = measure_latency(call, repeats=10)
    assert calls == [10]
    assert found.p50_s == pytest.approx(np.median(expected))
    assert found.p95_s == pytest.approx(np.percentile(expected, 95))
    low, high = np.percentile(expected, [25, 75])
    assert found.spread == pytest.approx((high - low) / np.median(expected))
    assert found.rounds == 1


def test_disturbed_calls_are_made_again_and_the_steadiest_round_counts(monkeypatch: pytest.MonkeyPatch):
    disturbed, steady = [0.01, 0.09] * 2, [0.02] * 4
    call, calls = clocked(monkeypatch, [*disturbed, *steady])
    found = measure_latency(call, repeats=4)
    assert calls == [8]
    assert (found.p50_s, found.rounds) == (pytest.approx(0.02), 2)
    assert found.spread == pytest.approx(0)


def test_calls_that_never_settle_are_given_up_on(monkeypatch: pytest.MonkeyPatch):
    call, calls = clocked(monkeypatch, [0.01, 0.09, 0.01, 0.09, 0.02, 0.09, 0.02, 0.09, 0.01, 0.09, 0.01, 0.09])
    found = measure_latency(call, repeats=4)
    assert calls == [12]
    assert found.rounds == 3
    assert found.p50_s == pytest.approx(0.055), "the second round varies least"
    assert found.spread > measure.WIDE_SPREAD


def test_calls_go_on_until_time_has_passed(monkeypatch: pytest.MonkeyPatch):
    call, calls = clocked(monkeypatch, [0.3])
    call_for(call, 1.0, since=0.0)
    assert calls == [4]
    call_for(call, 1.0, since=0.0)
    assert calls == [4]


def test_memory_that_a_gpu_keeps_for_activations_is_in_use(monkeypatch: pytest.MonkeyPatch):
    kept = [100 * MB]
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: kept.__setitem__(0, 0))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1000 * MB - 50 * MB - kept[0], 1000 * MB))
    assert used_gpu_mb() == 150
    release_gpu_memory()
    assert used_gpu_mb() == 50


def test_a_slow_call_is_as_slow_as_it_is():
    found = measure_latency(lambda: time.sleep(0.01), repeats=5)
    assert found.p50_s >= 0.01
    assert found.p95_s >= found.p50_s
    assert found.spread >= 0


def test_errors_pass_through():
    with pytest.raises(ZeroDivisionError):
        measure_latency(lambda: 1 / 0, repeats=3)


@pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "sampled"])
def test_an_allocation_is_seen_after_it_is_gone(kernel: bool, monkeypatch: pytest.MonkeyPatch):
    if not kernel:
        monkeypatch.setattr(measure, "_reset_high_water_mark", lambda: False)
    with peak_memory() as memory:
        block = np.ones(200 * MB // 8)
        time.sleep(0.05)
        del block
    assert memory.added_mb == pytest.approx(200, rel=0.2)
    with peak_memory() as memory:
        pass
    assert memory.added_mb < 20, "what was allocated before does not count"


def test_the_peak_is_read_when_the_block_raises():
    memory = None

    def allocate_and_fail() -> None:
        nonlocal memory
        with peak_memory() as memory:
            block = np.ones(100 * MB // 8)
            raise RuntimeError(block[0])

    with pytest.raises(RuntimeError):
        allocate_and_fail()
    assert memory is not None
    assert memory.added_mb == pytest.approx(100, rel=0.2)


def test_the_sampling_thread_ends(monkeypatch: pytest.MonkeyPatch):
    import threading

    monkeypatch.setattr(measure, "_reset_high_water_mark", lambda: False)
    with peak_memory():
        assert "peak-memory" in [t.name for t in threading.enumerate()]
    assert "peak-memory" not in [t.name for t in threading.enumerate()]
