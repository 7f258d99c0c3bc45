"""What ``doctor`` does about things that do not work."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vitsearch.cli import checks, probes
from vitsearch.cli.checks import PROBES, Probe, run_checks
from vitsearch.cli.main import app
from vitsearch.config import SAMPLERS

Breaks = Callable[[pytest.MonkeyPatch], None]


def fails() -> str:
    raise OSError("the disk is on fire\nand more")


def only(monkeypatch: pytest.MonkeyPatch, **probe: Probe) -> None:
    monkeypatch.setattr(checks, "PROBES", probe)


def test_a_failing_check_is_told_with_its_remedy_and_ends_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    only(
        monkeypatch,
        first=Probe(attempt=lambda: "fine", remedy="never"),
        second=Probe(attempt=fails, remedy="put it out"),
        third=Probe(attempt=fails, remedy="leave it", optional=True),
    )
    found = CliRunner().invoke(app, ["doctor"])
    assert found.exit_code == 1
    assert found.output.splitlines() == [
        "ok    first: fine",
        "FAIL  second: OSError: the disk is on fire; put it out",
        "MISS  third: OSError: the disk is on fire; leave it",
    ]
    found = CliRunner().invoke(app, ["doctor", "--json"])
    assert found.exit_code == 1
    assert json.loads(found.output)[1] == {
        "check": "second", "ok": False, "detail": "OSError: the disk is on fire", "remedy": "put it out",
    }  # fmt: skip


def test_something_optional_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, one=Probe(attempt=fails, remedy="leave it", optional=True))
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 0


def test_the_copies_of_fetched_files_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITSEARCH_CACHE", str(tmp_path))
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "x.npz").write_bytes(bytes(3_000_000))
    assert probes.fetched_files() == f"3 MB in {tmp_path.resolve()}, which may be deleted at any time"
    (tmp_path / "file").touch()
    monkeypatch.setenv("VITSEARCH_CACHE", str(tmp_path / "file" / "x"))
    only(monkeypatch, one=PROBES["fetched files"])
    (check,) = run_checks()
    assert not check.ok
    assert check.optional
    assert "cannot be made" in check.detail


def test_every_probe_has_a_remedy() -> None:
    assert all(probe.remedy for probe in PROBES.values())


def without(module: str) -> Breaks:
    return lambda monkeypatch: monkeypatch.setitem(sys.modules, module, None)


def broken_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SAMPLERS, "nsga2", type(SAMPLERS["nsga2"])(build="nowhere:nothing"))


def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "MIN_FREE_BYTES", 10**18)


def no_write_ahead_log(monkeypatch: pytest.MonkeyPatch) -> None:
    from vitsearch.storage import database

    monkeypatch.setattr(database, "_tune_sqlite", lambda *_: None)


def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.optim.SGD, "step", lambda *_: None)


def another_onnx_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    from vitsearch import onnx

    class Wrong(onnx.OnnxModel):
        def __call__(self, images_BCHW):
            return super().__call__(images_BCHW) + 1

    monkeypatch.setattr(onnx, "OnnxModel", Wrong)


@pytest.mark.parametrize(
    ("name", "breaks", "words"),
    [
        ("torch", no_training, "took the loss from"),
        ("timm", without("timm.optim"), "timm"),
        ("ray", without("ray"), "ray"),
        ("optuna", broken_sampler, "nowhere"),
        ("mlflow", without("mlflow"), "mlflow"),
        ("onnxruntime", without("onnxruntime"), "onnxruntime"),
        ("onnxruntime", another_onnx_runtime, "logits differ by 1"),
        ("database", no_write_ahead_log, "keeps a delete journal"),
        ("memory and disk", no_room, "less than 1 GB left"),
        ("hugging face data sets", without("datasets"), "datasets"),
        ("postgresql driver", without("psycopg"), "psycopg"),
    ],
)
def test_a_check_notices_what_is_broken(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    breaks: Callable[[pytest.MonkeyPatch], None],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    breaks(monkeypatch)
    only(monkeypatch, **{name: PROBES[name]})
    (check,) = run_checks()
    assert not check.ok
    assert words in check.detail
    assert check.remedy == PROBES[name].remedy
    assert list(tmp_path.iterdir()) == []  # nothing is left behind
