"""Latency and memory of one runnable, measured the same way whatever runs it."""

from __future__ import annotations

import ctypes
import ctypes.util
import gc
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MB = 1e6
SAMPLE_INTERVAL_S = 0.002


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Seconds of one call.

    Attributes:
        p50_s: Median.
        p95_s: 95th percentile.
        spread: Interquartile range relative to the median.
    """

    p50_s: float
    p95_s: float
    spread: float


def measure_latency(call: Callable[[], object], *, warmup: int, repeats: int) -> Latency:
    """Time ``call``; it must return only when its work is done."""
    for _ in range(warmup):
        call()
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


def processor_name() -> str:
    """What the operating system calls the processor."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


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
