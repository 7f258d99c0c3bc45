from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.compress.factory import candidate
from vitsearch.candidate import Candidate
from vitsearch.compress import assemble
from vitsearch.config import TargetSpec
from vitsearch.messages import Profile, ProfileRequest
from vitsearch.profile import RUNTIMES, measure, run_profile
from vitsearch.profile import run as module
from vitsearch.trial import load_model, save_model

COMPRESSED: dict[str, Any] = {
    "tokens": {"reducer": "tome", "r": 2},
    "sparsity": {"method": "magnitude", "mlp_units": 20, "heads": 2},
    "precision": {"weight_bits": 4, "activation_bits": 8},
}


def profiled(folder: Path, c: Candidate, *, contended: bool = False, **target: Any) -> Profile:
    if not (folder / "model.safetensors").exists():
        save_model(assemble(c), c, folder)
    settings = {"name": "desk", "warmup": 1, "repeats": 4, **target}
    request = ProfileRequest(
        trial=0,
        artifact_dir=str(folder),
        candidate=c,
        target=TargetSpec.model_validate(settings),
        contended=contended,
    )
    return run_profile(request, load_model(c, folder))


def test_the_runtimes_are_those_a_job_can_name():
    assert set(RUNTIMES) == set(TargetSpec.model_json_schema()["properties"]["runtime"]["enum"])


@pytest.mark.parametrize("parts", [{}, COMPRESSED], ids=["dense", "compressed"])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_figures_and_conditions(runtime: str, parts: dict[str, Any], tmp_path: Path):
    found = profiled(tmp_path, candidate(**parts), runtime=runtime, batch_size=3, threads=2, contended=True)
    assert 0 < found.latency_ms_p50 <= found.latency_ms_p95
    assert found.latency_ms_spread >= 0
    assert found.images_per_s == pytest.approx(3 / found.latency_ms_p50 * 1000)
    assert found.file_size_mb in {file.stat().st_size / 1e6 for file in tmp_path.iterdir()}
    assert 0 <= found.peak_memory_mb < 100
    conditions = found.conditions.model_dump()
    assert conditions.pop("runtime").startswith(f"{runtime} ")
    assert conditions.pop("device") == measure.processor_name()
    assert conditions == {
        "target": "desk", "dtype": "float32", "batch_size": 3, "threads": 2, "warmup": 1, "repeats": 4,
        "contended": True,
    }  # fmt: skip
    assert Profile.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize("fails", [False, True])
def test_threads_are_set_while_measuring_and_restored(
    fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: list[int] = []

    def prepare(model: object, target: TargetSpec, folder: Path) -> Any:
        def call() -> None:
            seen.append(torch.get_num_threads())
            if fails:
                raise RuntimeError("broken runtime")

        return call, folder / "none", "fake 1"

    monkeypatch.setattr(module, "RUNTIMES", {"pytorch": prepare})
    before = torch.get_num_threads()
    wanted = before + 1
    if fails:
        with pytest.raises(RuntimeError, match="broken runtime"):
            profiled(tmp_path, candidate(), threads=wanted)
    else:
        assert profiled(tmp_path, candidate(), threads=wanted).file_size_mb == 0
    assert set(seen) == {wanted}
    assert torch.get_num_threads() == before


def test_memory_for_the_export_is_not_memory_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whatever a runtime allocates when it first prepares a model is gone before the measurement begins."""
    prepared: list[int] = []

    def prepare(model: object, target: TargetSpec, folder: Path) -> Any:
        prepared.append(1)
        if len(prepared) == 1:
            block = np.ones(200_000_000 // 8)
            del block
        buffer: list[Any] = []

        def call() -> None:
            if not buffer:
                buffer.append(np.ones(50_000_000 // 8))

        return call, folder / "none", "fake 1"

    monkeypatch.setattr(module, "RUNTIMES", {"onnxruntime": prepare})
    found = profiled(tmp_path, candidate(), runtime="onnxruntime")
    assert found.peak_memory_mb == pytest.approx(50, rel=0.2)


def test_memory_does_not_depend_on_what_was_measured_before(tmp_path: Path):
    """A library sets itself up at its first call; in a fresh process the first model would pay for it."""
    small, large = candidate(), candidate({"width": 96, "heads": 4})
    save_model(assemble(small), small, tmp_path / "small")
    save_model(assemble(large), large, tmp_path / "large")
    code = """
import sys
from pathlib import Path
from vitsearch.candidate import load_candidate
from vitsearch.config import TargetSpec
from vitsearch.messages import ProfileRequest
from vitsearch.profile import run_profile
from vitsearch.trial import load_model

for name in sys.argv[1:]:
    candidate = load_candidate(Path(name) / "candidate.json")
    request = ProfileRequest(trial=0, artifact_dir=name, candidate=candidate, target=TargetSpec(repeats=3))
    print(run_profile(request, load_model(candidate, Path(name))).peak_memory_mb)
"""
    names = [str(tmp_path / name) for name in ("small", "large")]
    found = {}
    for order in (names, names[::-1]):
        output = subprocess.run([sys.executable, "-c", code, *order], capture_output=True, text=True, check=True)
        for name, memory_mb in zip(order, output.stdout.split(), strict=True):
            found.setdefault(name, []).append(float(memory_mb))
    for first, second in found.values():
        assert first == pytest.approx(second, abs=1.5)


def test_weights_count_as_memory_of_pytorch(tmp_path: Path):
    """They are loaded before the measurement begins."""
    c = candidate({"width": 384, "heads": 4, "mlp_ratio": 4.0})
    found = profiled(tmp_path, c)
    weights_mb = sum(p.numel() for p in assemble(c).parameters()) * 4 / 1e6
    assert weights_mb > 20
    assert found.peak_memory_mb >= weights_mb


def test_the_exported_file_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    c = candidate()
    profiled(tmp_path, c, runtime="onnxruntime")
    made = (tmp_path / "model.onnx").stat().st_mtime_ns
    monkeypatch.setattr(
        "vitsearch.profile.onnxruntime.export_onnx", lambda *_, **__: pytest.fail("exported again")
    )
    profiled(tmp_path, c, runtime="onnxruntime", batch_size=2)
    assert (tmp_path / "model.onnx").stat().st_mtime_ns == made
