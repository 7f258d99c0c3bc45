import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.unit.train.factory import CPU, architecture, spec
from vitsearch.train import autocast as module
from vitsearch.train.autocast import MODES, executes_bf16, fastest_autocast
from vitsearch.train.loop import autocast


def test_a_processor_without_bf16_measures_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "executes_bf16", lambda _: False)
    monkeypatch.setattr(module, "_training_step", lambda *_: pytest.fail("measured"))
    assert fastest_autocast(architecture(), 4, CPU) == "fp32"


@pytest.mark.parametrize("fastest", MODES)
def test_the_fastest_wins(monkeypatch: pytest.MonkeyPatch, fastest: str):
    monkeypatch.setattr(module, "executes_bf16", lambda _: True)
    monkeypatch.setattr(module, "_training_step", lambda *args: lambda: 0.0 if args[-1] == fastest else 1.0)
    assert fastest_autocast(architecture(), 4, CPU) == fastest


def test_a_real_measurement_tries_every_mode(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "executes_bf16", lambda _: True)
    tried = []
    make = module._training_step

    def recorded(*args: Any) -> Callable[[], float]:
        step = make(*args)
        return lambda: tried.append(args[-1]) or step()

    monkeypatch.setattr(module, "_training_step", recorded)
    assert fastest_autocast(architecture(), 4, CPU) in MODES
    assert tried == [*MODES] * module.ROUNDS


def test_what_the_processor_says(monkeypatch: pytest.MonkeyPatch):
    assert isinstance(executes_bf16(CPU), bool)
    for capabilities, expected in (({}, False), ({"amx_bf16": True}, True), ({"avx512_bf16": False}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda c=capabilities: c, raising=False)
        assert executes_bf16(CPU) is expected


@pytest.mark.parametrize("mode", MODES)
def test_the_format_of_a_product(mode: str):
    with autocast(spec(autocast=mode), CPU):
        product = torch.rand(2, 2) @ torch.rand(2, 2)
    assert product.dtype == (torch.float32 if mode == "fp32" else torch.bfloat16)
    assert isinstance(autocast(spec(autocast="fp32"), CPU), contextlib.nullcontext)
