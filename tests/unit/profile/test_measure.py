from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from vitsearch.profile import measure
from vitsearch.profile.measure import measure_latency, peak_memory, processor_name

MB = 1_000_000


def test_latency_is_that_of_the_measured_calls(monkeypatch: pytest.MonkeyPatch):
    """A clock of our own: warm-up calls take a second, measured ones 10, 20, ..., 100 ms."""
    now, calls = 0.0, 0

    def call() -> None:
        nonlocal now, calls
        calls += 1
        now += 1.0 if calls <= 3 else (calls - 3) / 100

    monkeypatch.setattr(measure.time, "perf_counter", lambda: now)
    found = measure_latency(call, warmup=3, repeats=10)
    assert calls == 13
    expected = np.arange(1, 11) / 100
    assert found.p50_s == pytest.approx(np.median(expected))
    assert found.p95_s == pytest.approx(np.percentile(expected, 95))
    low, high = np.percentile(expected, [25, 75])
    assert found.spread == pytest.approx((high - low) / np.median(expected))


def test_a_slow_call_is_as_slow_as_it_is():
    found = measure_latency(lambda: time.sleep(0.01), warmup=0, repeats=5)
    assert found.p50_s >= 0.01
    assert found.p95_s >= found.p50_s
    assert found.spread >= 0


def test_no_warm_up_and_errors_pass_through():
    with pytest.raises(ZeroDivisionError):
        measure_latency(lambda: 1 / 0, warmup=0, repeats=3)


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


def test_the_processor_has_a_name():
    name = processor_name()
    assert name
    assert "\n" not in name
    assert Path("/proc/cpuinfo").exists() <= (name in Path("/proc/cpuinfo").read_text(encoding="utf-8"))
