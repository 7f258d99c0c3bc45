"""Counters as Linux shows them, in a folder of our own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vitsearch.profile import power
from vitsearch.profile.power import energy_meter, throttle_counter

RANGE_UJ = 1_000_000


def package(folder: Path, number: int, count_uj: int, name: str = "") -> Path:
    domain = folder / f"intel-rapl:{number}"
    domain.mkdir()
    (domain / "name").write_text(f"{name or f'package-{number}'}\n")
    (domain / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    (domain / "energy_uj").write_text(f"{count_uj}\n")
    part = folder / f"intel-rapl:{number}:0"
    part.mkdir()
    (part / "energy_uj").write_text("not to be read")
    return domain / "energy_uj"


@pytest.fixture
def rapl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(power, "RAPL", tmp_path)
    return tmp_path


def test_millijoules_of_all_packages_also_past_a_wrap(rapl: Path) -> None:
    first, second = package(rapl, 0, 5_000), package(rapl, 1, 999_000)
    meter = energy_meter("cpu")
    assert meter is not None
    assert meter.name == "rapl"
    meter.start()
    first.write_text("25000\n")
    second.write_text("4000\n")
    assert meter.stop() == pytest.approx((20_000 + 5_000) / 1000)
    meter.start()
    assert meter.stop() == 0, "each measurement begins anew"


def test_the_board_is_not_added_to_its_packages(rapl: Path) -> None:
    counter, board = package(rapl, 0, 0), package(rapl, 1, 0, "psys")
    meter = energy_meter("cpu")
    assert meter is not None
    meter.start()
    counter.write_text("5000\n")
    board.write_text("9000\n")
    assert meter.stop() == 5


def test_a_counter_that_wraps_in_between_is_followed(rapl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "WRAP_POLL_S", 0.01)
    counter = package(rapl, 0, 0)
    meter = energy_meter("cpu")
    assert meter is not None
    meter.start()
    for count_uj in (600_000, 200_000, 800_000):
        whole = rapl / "next"  # the kernel shows no half-written figure either
        whole.write_text(f"{count_uj}\n")
        whole.replace(counter)
        for _ in range(500):
            if meter._last == [count_uj]:
                break
            power.threading.Event().wait(0.01)
    assert meter.stop() == pytest.approx((600_000 + 600_000 + 600_000) / 1000)


def test_no_counter_no_figure(rapl: Path) -> None:
    assert energy_meter("cpu") is None
    package(rapl, 0, 0).write_text("")
    assert energy_meter("cpu") is None, "it cannot be read"


def test_clocks_that_were_lowered_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "PROCESSORS", tmp_path)
    assert throttle_counter("cpu") is None
    for number in range(2):
        folder = tmp_path / f"cpu{number}" / "thermal_throttle"
        folder.mkdir(parents=True)
        (folder / "core_throttle_count").write_text("3\n")
        (folder / "package_throttle_count").write_text("1\n")
    read = throttle_counter("cpu")
    assert read is not None
    before = read()
    (tmp_path / "cpu1" / "thermal_throttle" / "core_throttle_count").write_text("4\n")
    assert read() == before + 1


class Nvml:
    """A management library that sees two GPUs, the second of which is PyTorch's first."""

    NVML_PERF_POLICY_POWER, NVML_PERF_POLICY_THERMAL = 0, 1
    energy_mj = 100
    violations_ns = (5, 7)

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return ("GPU-a", "GPU-b")[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: str) -> int:
        return self.energy_mj if gpu == "GPU-b" else 0

    def nvmlDeviceGetViolationStatus(self, gpu: str, kind: int) -> object:
        assert gpu == "GPU-b"
        return type("Status", (), {"violationTime": self.violations_ns[kind]})


def test_a_gpu_tells_by_its_management_library(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml()
    monkeypatch.setattr(power, "_nvml", lambda: nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=("b", "a")[index]))
    meter, read = energy_meter("cuda"), throttle_counter("cuda")
    assert meter is not None
    assert read is not None
    assert meter.name == "nvml"
    meter.start()
    nvml.energy_mj = 350
    assert meter.stop() == 250
    before = read()
    nvml.violations_ns = (5, 9)
    assert read() > before


def test_a_gpu_that_tells_nothing_has_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("no driver")

    monkeypatch.setattr(power, "_nvml", fail)
    assert energy_meter("cuda") is None
    assert throttle_counter("cuda") is None
