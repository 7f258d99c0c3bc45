"""Energy counters and lowered clocks, where a platform tells of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

RAPL = Path("/sys/class/powercap")
PROCESSORS = Path("/sys/devices/system/cpu")
WRAP_POLL_S = 30.0


class Meter(Protocol):
    """A counter of energy."""

    name: str

    def start(self) -> None:
        """Count from now."""
        ...

    def stop(self) -> float:
        """Millijoules since the start, of all that the counter covers: idle power and neighbours are in it."""
        ...


class _Domain(NamedTuple):
    counter: Path
    range_uj: int


class RaplMeter:
    """The processor packages' own counters, by Linux's powercap.

    A counter wraps around, on a busy server within minutes; a thread adds up what it has counted until then.

    Args:
        domains: Counter and range of each package.
    """

    name = "rapl"

    def __init__(self, domains: list[_Domain]) -> None:
        self._domains = domains
        self._total_uj = 0
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._last: list[int] = []

    def start(self) -> None:
        """Count from now."""
        self._total_uj, self._last = 0, [_number(one.counter) for one in self._domains]
        self._done.clear()
        self._thread = threading.Thread(target=self._watch, name="energy", daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """Millijoules since the start."""
        self._done.set()
        if self._thread is not None:
            self._thread.join()
        self._add()
        return self._total_uj / 1e3

    def _watch(self) -> None:
        while not self._done.wait(WRAP_POLL_S):
            self._add()

    def _add(self) -> None:
        now = [_number(one.counter) for one in self._domains]
        for before, after, domain in zip(self._last, now, self._domains, strict=True):
            self._total_uj += after - before if after >= before else after - before + domain.range_uj
        self._last = now


class NvmlMeter:
    """The own counter of the first GPU that this process sees, by NVIDIA's management library.

    Args:
        nvml: The library, initialised.
    """

    name = "nvml"

    def __init__(self, nvml: Any) -> None:
        self._nvml, self._gpu = nvml, _gpu(nvml)
        self._before = 0.0
        self._read()  # older GPUs have no counter

    def start(self) -> None:
        """Count from now."""
        self._before = self._read()

    def stop(self) -> float:
        """Millijoules since the start."""
        return self._read() - self._before

    def _read(self) -> float:
        return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._gpu))


def energy_meter(device: str) -> Meter | None:
    """The counter of a device, ``cpu`` or ``cuda``; None where there is none, or it may not be read."""
    if device == "cuda":
        with suppress(Exception):  # no library, no driver, no counter: each in an exception of its own
            return NvmlMeter(_nvml())
        return None
    domains = []
    for folder in sorted(RAPL.glob("intel-rapl:*")):  # AMD's are called so, too
        if folder.name.count(":") != 1:
            continue  # a part of a package, whose counter has it already
        try:
            if not (folder / "name").read_text(encoding="ascii").startswith("package"):
                continue  # psys: the whole board, with the packages in it
            counter = folder / "energy_uj"
            domains.append(_Domain(counter, _number(folder / "max_energy_range_uj")))
            _number(counter)
        except (OSError, ValueError):
            return None  # for root alone, on most systems
    return RaplMeter(domains) if domains else None


def throttle_counter(device: str) -> Callable[[], int] | None:
    """Tells how often the clocks of a device have been lowered for heat or power; None where nothing does.

    The number itself means nothing; if it grows during a measurement, clocks were lowered.
    """
    if device == "cuda":
        try:
            nvml = _nvml()
            gpu = _gpu(nvml)
            kinds = (nvml.NVML_PERF_POLICY_POWER, nvml.NVML_PERF_POLICY_THERMAL)
            read: Callable[[], int] = lambda: sum(  # noqa: E731
                int(nvml.nvmlDeviceGetViolationStatus(gpu, kind).violationTime) for kind in kinds
            )
            read()
        except Exception:  # noqa: BLE001 - no library, no driver, no counter: each in an exception of its own
            return None
        return read
    files = sorted(PROCESSORS.glob("cpu[0-9]*/thermal_throttle/*_throttle_count"))
    return (lambda: sum(_number(file) for file in files)) if files else None


def _nvml() -> Any:
    import pynvml

    pynvml.nvmlInit()
    return pynvml


def _gpu(nvml: Any) -> Any:
    """PyTorch's first GPU: the library counts those that CUDA_VISIBLE_DEVICES hides, and in another order."""
    import torch

    return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(0).uuid}")


def _number(file: Path) -> int:
    return int(file.read_text(encoding="ascii"))
