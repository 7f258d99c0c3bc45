from __future__ import annotations

from pathlib import Path

import pytest

from vitsearch.config import LIBRARIES
from vitsearch.profile import facts
from vitsearch.profile.facts import machine_facts, processor_name, runtime_name


@pytest.fixture(autouse=True)
def asked_anew() -> None:
    machine_facts.cache_clear()


def test_the_processor_has_a_name():
    name = processor_name()
    assert name
    assert "\n" not in name
    assert Path("/proc/cpuinfo").exists() <= (name in Path("/proc/cpuinfo").read_text(encoding="utf-8"))


def test_what_is_installed_and_what_is_missing():
    found = machine_facts()
    assert found.runtimes.keys() >= {"pytorch", "onnxruntime"}
    assert {*found.runtimes, *found.missing} == {*LIBRARIES}
    assert runtime_name("onnxruntime_int8_qdq") == (
        f"onnxruntime_int8_qdq {found.runtimes['onnxruntime'].version}"
    )


def test_machines_of_equal_hardware_are_told_apart_by_nothing_else(monkeypatch: pytest.MonkeyPatch):
    one = machine_facts()
    other = one.model_copy(update={"host": "elsewhere", "python": "3.99"})
    assert other.fingerprint == one.fingerprint
    monkeypatch.setattr(facts, "processor_name", lambda: "another")
    machine_facts.cache_clear()
    assert machine_facts().fingerprint != one.fingerprint


def test_boards_without_a_name_of_their_processor_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As on 64-bit ARM, where the list of processors names none."""
    board = tmp_path / "model"
    board.write_bytes(b"NVIDIA Jetson Orin Nano\x00")
    monkeypatch.setattr(facts, "BOARD", board)
    monkeypatch.setattr(facts.sys, "platform", "linux")
    listed = tmp_path / "cpuinfo"
    listed.write_text("processor : 0\nCPU part : 0xd42\n")
    monkeypatch.setattr(facts, "PROCESSORS", listed)
    assert processor_name() == "NVIDIA Jetson Orin Nano"


def test_servers_without_a_name_of_their_processor_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As 64-bit ARM in a data centre, where nothing names the board either."""
    monkeypatch.setattr(facts, "BOARD", tmp_path / "absent")
    monkeypatch.setattr(facts.sys, "platform", "linux")
    monkeypatch.setattr(facts.platform, "processor", lambda: "aarch64")
    core = (
        "processor\t: {}\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x{}\nCPU part\t: 0x{}\n\n"
    )
    listed = tmp_path / "cpuinfo"
    monkeypatch.setattr(facts, "PROCESSORS", listed)
    names = []
    for cores in ([("3", "d0c")] * 2, [("1", "d40")] * 2, [("1", "d40"), ("0", "d46")]):
        listed.write_text("".join(core.format(i, *kind) for i, kind in enumerate(cores)))
        names.append(processor_name())
    assert names == ["aarch64 0x41/0x3/0xd0c", "aarch64 0x41/0x1/0xd40", "aarch64 0x41/0x0/0xd46 0x41/0x1/0xd40"]
    listed.write_text("processor : 0\n")
    assert processor_name() == "aarch64"
