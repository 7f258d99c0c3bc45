"""Latency and memory of one runnable, measured the same way whatever runs it."""

from __future__ import annotations

import ctypes
import ctypes.util
import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vitsearch.messages import WIDE_SPREAD

MB = 1e6
SAMPLE_INTERVAL_S = 0.002
MOST_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Seconds of one call.

    Attributes:
        p50_s: Median.
        p95_s: 95th percentile.
        spread: Interquartile range relative to the median.
        rounds: How often all calls were repeated to find calls this steady.
    """

    p50_s: float
    p95_s: float
    spread: float
    rounds: int = 1


def measure_latency(call: Callable[[], object], *, repeats: int) -> Latency:
    """Time ``call``, which is warm and returns only when its work is done.

    Where a quarter of the calls took much longer than another quarter, something disturbed them, and all are made
    again, at most twice; the steadiest round counts.
    """
    rounds = [_round(call, repeats)]
    while rounds[-1].spread > WIDE_SPREAD and len(rounds) < MOST_ROUNDS:
        rounds.append(_round(call, repeats))
    return replace(min(rounds, key=lambda one: one.spread), rounds=len(rounds))


def call_for(call: Callable[[], object], seconds: float, *, since: float) -> None:
    """Call until so much time has passed since a moment of ``time.perf_counter``."""
    while time.perf_counter() - since < seconds:
        call()


def _round(call: Callable[[], object], repeats: int) -> Latency:
    seconds = np.empty(repeats)
    for i in range(repeats):
        started = time.perf_counter()
        call()
        seconds[i] = time.perf_counter() - started
    low, mid, high = np.percentile(seconds, [25, 50, 75])
    return Latency(p50_s=float(mid), p95_s=float(np.percentile(seconds, 95)), spread=float((high - low) / mid))


class PeakMemory:
    """Largest resident memory of this process above where it stood at the start, in MB.

    Sampled every 2 ms by a thread; on Linux the kernel's own high-water mark is used instead.
    """

    def __init__(self) -> None:
        self.added_mb = 0.0


@contextmanager
def peak_memory() -> Iterator[PeakMemory]:
    """Watch resident memory inside the ``with`` block; read ``added_mb`` after it."""
    import psutil

    found, process = PeakMemory(), psutil.Process()
    _return_free_memory()
    start, kernel_mark = process.memory_info().rss, _reset_high_water_mark()
    peak, done = [start], threading.Event()

    def sample() -> None:
        while not done.wait(SAMPLE_INTERVAL_S):
            peak[0] = max(peak[0], process.memory_info().rss)

    thread = threading.Thread(target=sample, name="peak-memory", daemon=True)
    if not kernel_mark:
        thread.start()
    try:
        yield found
    finally:
        done.set()
        if not kernel_mark:
            thread.join()
        top = _high_water_mark() if kernel_mark else max(peak[0], process.memory_info().rss)
        found.added_mb = max(0.0, (top - start) / MB)


def used_gpu_mb() -> float:
    """Memory in use on the first GPU, by all processes, with what PyTorch keeps for activations."""
    import torch

    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info(0)
    return (total - free) / MB


def release_gpu_memory() -> None:
    """Give back what PyTorch keeps of models that are gone."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()


def _return_free_memory() -> None:
    gc.collect()
    if sys.platform == "linux":
        library = ctypes.util.find_library("c")
        trim = getattr(ctypes.CDLL(library), "malloc_trim", None) if library else None
        if trim is not None:
            trim(0)


def _reset_high_water_mark() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _high_water_mark() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
