from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.compress.factory import candidate
from tests.unit.train.factory import CPU, tensor_data
from vitsearch.candidate import Candidate, Precision
from vitsearch.compress import assemble, calibrate, insert_quantizers
from vitsearch.compress.quantize import QuantizedProjection
from vitsearch.config import RUNTIMES as TABLE
from vitsearch.config import DatasetSpec, TargetSpec, TrainSpec
from vitsearch.errors import MeasurementError
from vitsearch.messages import Conditions, Profile, ProfileRequest, TrialRequest, TrialResult
from vitsearch.models import VisionTransformer
from vitsearch.onnx import OnnxModel
from vitsearch.profile import RUNTIMES, Model, Runnable, facts, pytorch, run_profile
from vitsearch.profile import run as module
from vitsearch.profile.choice import executes
from vitsearch.profile.files import files_for, sample_images
from vitsearch.profile.power import throttle_counter
from vitsearch.train.data import load_dataset
from vitsearch.train.evaluate import normalized_batches
from vitsearch.train.tensors import TensorData
from vitsearch.trial import TrialContext, load_model, run_trial, save_model

COMPRESSED: dict[str, Any] = {
    "tokens": {"reducer": "tome", "r": 2},
    "sparsity": {"method": "magnitude", "mlp_units": 20, "heads": 2},
    "precision": {"weight_bits": 4, "activation_bits": 8},
}


NEEDS_OPENVINO = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="needs pip install 'vitsearch[openvino]'"
)
WIDE = {"width": 96, "heads": 4, "num_classes": 3}


def quantised(c: Candidate, data: TensorData) -> VisionTransformer:
    """A calibrated network with random weights."""
    torch.manual_seed(0)
    plain = c.model_copy(update={"precision": Precision()})
    model = assemble(plain)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    insert_quantizers(model, c.precision).eval()
    calibrate(model, [images for images, _ in normalized_batches(data, data.source.train, 21)])
    return model


def profile_of(request: ProfileRequest, runtime: str, seconds: float) -> Profile:
    return Profile(
        latency_ms_p50=1000 * seconds, latency_ms_p95=1000 * seconds, latency_ms_spread=0.0,
        images_per_s=1 / seconds, peak_memory_mb=1.0, file_size_mb=1.0,
        conditions=Conditions(
            target=request.target.name, runtime=runtime, device="fake", dtype="float32", batch_size=1, threads=1,
            warmup=0, repeats=3, contended=False,
        ),
    )  # fmt: skip


def profiled(
    folder: Path, c: Candidate, *, contended: bool = False, data: TensorData | None = None, **target: Any
) -> Profile:
    if not (folder / "model.safetensors").exists():
        save_model(assemble(c), c, folder)
    settings = {"name": "desk", "warmup": 1, "repeats": 4, **target}
    request = ProfileRequest(
        trial=0,
        artifact_dir=str(folder),
        candidate=c,
        target=TargetSpec.model_validate(settings),
    )
    files, errors = files_for(request.target.runtimes, load_model(c, folder), c, folder, data)
    return run_profile(request, files, None if data is None else sample_images(data), errors, contended=contended)


def test_the_runtimes_are_those_a_job_can_name():
    assert set(RUNTIMES) == set(TargetSpec.model_json_schema()["properties"]["runtime"]["enum"])


@pytest.mark.parametrize(
    "parts", [{}, pytest.param(COMPRESSED, marks=pytest.mark.slow)], ids=["dense", "compressed"]
)
@pytest.mark.parametrize(
    "runtime",
    [
        "pytorch", "pytorch_bf16", pytest.param("pytorch_compiled", marks=pytest.mark.slow), "onnxruntime",
        pytest.param("openvino", marks=NEEDS_OPENVINO),
    ],
)  # fmt: skip
def test_figures_and_conditions(runtime: str, parts: dict[str, Any], tmp_path: Path):
    found = profiled(tmp_path, candidate(**parts), runtime=runtime, batch_size=3, threads=2, contended=True)
    assert 0 < found.latency_ms_p50 <= found.latency_ms_p95
    assert found.latency_ms_spread >= 0
    assert found.images_per_s == pytest.approx(3 / found.latency_ms_p50 * 1000)
    assert found.file_size_mb in {file.stat().st_size / 1e6 for file in tmp_path.iterdir()}
    assert 0 <= found.peak_memory_mb < 100
    conditions = found.conditions.model_dump()
    assert conditions.pop("runtime").startswith(f"{runtime} ")
    assert conditions.pop("device") == facts.processor_name()
    assert conditions.pop("machine") == facts.machine_facts().fingerprint
    assert 1 <= conditions.pop("rounds") <= 3
    assert (conditions.pop("throttled") is None) == (throttle_counter("cpu") is None)
    assert conditions == {
        "target": "desk", "dtype": "bfloat16" if runtime == "pytorch_bf16" else "float32",
        "batch_size": 3, "threads": 2, "warmup": 1, "repeats": 4,
        "contended": True, "inputs": "noise", "measured_by": "", "reused": False,
    }  # fmt: skip
    assert found.accuracy is None
    assert Profile.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize("fails", [False, True])
def test_threads_are_set_while_measuring_and_restored(
    fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: list[int] = []

    def forward(self: VisionTransformer, images_BCHW: torch.Tensor) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        if fails:
            raise RuntimeError("broken runtime")
        return torch.zeros(len(images_BCHW), 3)

    monkeypatch.setattr(VisionTransformer, "forward", forward)
    before = torch.get_num_threads()
    wanted = before + 1
    if fails:
        with pytest.raises(MeasurementError, match="pytorch on desk: RuntimeError: broken runtime"):
            profiled(tmp_path, candidate(), threads=wanted)
    else:
        assert profiled(tmp_path, candidate(), threads=wanted).file_size_mb > 0
    assert set(seen) == {wanted}
    assert torch.get_num_threads() == before


def test_memory_of_the_first_load_is_not_memory_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whatever a runtime allocates when it first loads a model is gone before the measurement begins."""
    loaded: list[int] = []

    def load(model: Model, target: TargetSpec) -> Any:
        loaded.append(1)
        if len(loaded) == 1:
            block = np.ones(200_000_000 // 8)
            del block
        buffer: list[Any] = []

        def call(images_BCHW: object) -> None:
            if not buffer:
                buffer.append(np.ones(50_000_000 // 8))

        return Runnable(call)

    monkeypatch.setattr(module, "RUNTIMES", {"onnxruntime": load})
    found = profiled(tmp_path, candidate(), runtime="onnxruntime")
    assert found.peak_memory_mb == pytest.approx(50, rel=0.2)


def test_memory_on_a_gpu_is_of_weights_and_activations_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Kernels that the first model loads stay; what PyTorch keeps of a model that is gone is not the next's."""
    used = {"kernels": 0, "weights": 0, "activations": 0}

    def load(model: Model, target: TargetSpec) -> Runnable:
        used.update(kernels=300, weights=20)
        return Runnable(lambda _: used.update(activations=5), close=lambda: used.update(weights=0))  # type: ignore[arg-type,return-value]

    monkeypatch.setattr(module, "RUNTIMES", {"pytorch": load})
    monkeypatch.setattr(module, "used_gpu_mb", lambda: float(sum(used.values())))
    monkeypatch.setattr(module, "release_gpu_memory", lambda: used.update(activations=0))
    for _ in range(2):
        model, inputs = Model(file=tmp_path, candidate=candidate()), itertools.repeat(np.zeros(1, np.float32))
        with module._loaded("pytorch", model, TargetSpec(device="cuda"), inputs) as (_, memory_mb):
            assert memory_mb == 25


@pytest.mark.parametrize("moves", [True, False])
def test_energy_is_counted_over_a_second_of_calls(
    moves: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A counter that moves seldom tells nothing of a few quick calls, and 0 would win an objective."""
    calls, now = [0], [0.0]

    class Meter:
        name = "nvml"

        def start(self) -> None:
            self.before = calls[0]

        def stop(self) -> float:
            return 6.0 * (calls[0] - self.before) * moves

    def run(images_BCHW: object) -> None:
        calls[0] += 1
        now[0] += 0.01

    monkeypatch.setattr(module, "energy_meter", lambda _: Meter())
    monkeypatch.setattr(module, "RUNTIMES", {"pytorch": lambda *_: Runnable(run)})  # type: ignore[arg-type]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    found = profiled(tmp_path, candidate(), batch_size=2)
    assert found.energy_mj == (3 if moves else None)
    assert calls[0] >= 100


@pytest.mark.slow
def test_memory_does_not_depend_on_what_was_measured_before(tmp_path: Path):
    """A library sets itself up at its first call; in a fresh process the first model would pay for it."""
    small, large = candidate(), candidate({"width": 96, "heads": 4})
    save_model(assemble(small), small, tmp_path / "small")
    save_model(assemble(large), large, tmp_path / "large")
    code = """
import sys
from pathlib import Path
from vitsearch.candidate import load_candidate
from vitsearch.config import RUNTIMES as TABLE
from vitsearch.config import DatasetSpec, TargetSpec, TrainSpec
from vitsearch.messages import ProfileRequest
from vitsearch.profile import run_profile

for name in sys.argv[1:]:
    candidate = load_candidate(Path(name) / "candidate.json")
    request = ProfileRequest(trial=0, artifact_dir=name, candidate=candidate, target=TargetSpec(repeats=3))
    print(run_profile(request, {"weights": Path(name) / "model.safetensors"}).peak_memory_mb)
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
    monkeypatch.setattr("vitsearch.profile.files.export_onnx", lambda *_, **__: pytest.fail("exported again"))
    profiled(tmp_path, c, runtime="onnxruntime", batch_size=2)
    assert (tmp_path / "model.onnx").stat().st_mtime_ns == made


W8A8 = {"weight_bits": 8, "activation_bits": 8}
INT8 = ("onnxruntime_int8_dynamic", "onnxruntime_int8_qdq")


@pytest.mark.parametrize(
    ("precision", "real"),
    [
        (W8A8, True), ({**W8A8, "quantizer": "asymmetric"}, True), ({}, False), ({"weight_bits": 8}, False),
        ({"weight_bits": 4, "activation_bits": 8}, False), ({**W8A8, "weight_bits": (8, 4, 8)}, False),
    ],
    ids=str,
)  # fmt: skip
def test_only_candidates_of_eight_bits_run_in_eight_bits(precision: dict[str, Any], real: bool):
    c = candidate(precision=precision)
    assert {name: executes(name, c) for name in TABLE} == {name: real or name not in INT8 for name in TABLE}


@pytest.mark.parametrize(
    "precision",
    [
        W8A8,
        pytest.param({**W8A8, "quantizer": "repq"}, marks=pytest.mark.slow),
        pytest.param({**W8A8, "noisy": True}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_file_of_integers_is_made_of_the_quantised_weights_and_scored_itself(
    precision: dict[str, Any], tmp_path: Path
):
    data = tensor_data(size=8)
    c = candidate(WIDE, precision=precision, tokens={"reducer": "tome", "r": 2})
    model = quantised(c, data)
    save_model(model, c, tmp_path)
    found = profiled(tmp_path, c, data=data, runtime=INT8[0], also=INT8[1:], batch_size=2)
    measured = {one.conditions.runtime.partition(" ")[0]: one for one in (found, *found.others)}
    assert set(measured) == set(INT8)
    assert found.latency_ms_p50 <= found.others[0].latency_ms_p50
    for name, file in zip(INT8, ("model.int8-dynamic.onnx", "model.int8-qdq.onnx"), strict=True):
        one = measured[name]
        assert one.conditions.dtype == "int8"
        assert one.conditions.inputs == "validation images"
        assert one.file_size_mb == (tmp_path / file).stat().st_size / 1e6
        logits, exact = [], []
        for images, _ in normalized_batches(data, data.source.val, 12):
            logits.append(OnnxModel(tmp_path / file)(images.numpy()))
            exact.append(model(images).detach().numpy())
        assert (
            np.square(np.concatenate(logits) - np.concatenate(exact)).mean() < 0.05 * np.concatenate(exact).var()
        )
        right = np.concatenate(logits).argmax(1) == data.source.labels_N[data.source.val]
        assert one.accuracy == right.mean()
    float_file = OnnxModel(tmp_path / "model.float.onnx")
    weight = next(m for m in model.modules() if isinstance(m, QuantizedProjection)).layer.weight
    assert len(np.unique(weight[0].detach())) <= 256
    assert float_file(images.numpy()).shape == (len(images), 3)


def test_other_bits_are_left_out_and_the_fastest_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seconds = {"pytorch": 3.0, "onnxruntime": 1.0, "pytorch_bf16": 2.0}
    monkeypatch.setattr(
        module, "_measure",
        lambda request, runtime, *_, **__: profile_of(request, runtime, seconds[runtime]),
    )  # fmt: skip
    c = candidate()
    save_model(assemble(c), c, tmp_path)
    found = profiled(tmp_path, c, runtime="pytorch", also=["onnxruntime", *INT8, "pytorch_bf16", "pytorch"])
    assert found.conditions.runtime == "onnxruntime"
    assert [one.conditions.runtime for one in found.others] == ["pytorch", "pytorch_bf16"]
    with pytest.raises(ValueError, match="no runtime of target 'desk' executes"):
        profiled(tmp_path, c, runtime=INT8[0])


def test_ranges_of_a_file_of_integers_need_images(tmp_path: Path):
    c = candidate(WIDE, precision=W8A8)
    with pytest.raises(MeasurementError, match="chooses its ranges on training images, and there are none"):
        profiled(tmp_path, c, runtime=INT8[1])


@pytest.mark.slow
def test_a_trained_model_keeps_its_accuracy_in_integers(tmp_path: Path):
    """Digits, W8A8: simulated, dynamic and QDQ within two points of each other."""
    data = TensorData(load_dataset(DatasetSpec(kind="digits", max_images=900), image_size=8, seed=0), CPU)
    c = candidate({"width": 64, "heads": 4, "num_classes": 10}, precision=W8A8)
    recipe = TrainSpec(epochs=6, batch_size=32, lr=3e-3, autocast="fp32", pos_embed_std=0.5)
    request = TrialRequest(
        trial=0, candidate=c, train=recipe, seed=0, data_fingerprint=data.source.fingerprint,
        artifact_dir=str(tmp_path),
    )  # fmt: skip
    result = run_trial(request, TrialContext(data=data))
    assert isinstance(result, TrialResult)
    assert result.accuracy > 0.5
    found = profiled(tmp_path, c, data=data, runtime="pytorch", also=[*INT8, "pytorch_bf16"])
    accuracies = {one.conditions.runtime.partition(" ")[0]: one.accuracy for one in (found, *found.others)}
    assert accuracies.pop("pytorch") is None
    assert set(accuracies) == {*INT8, "pytorch_bf16"}
    for accuracy in accuracies.values():
        assert accuracy == pytest.approx(result.accuracy, abs=0.02)


def test_a_runtime_that_fails_takes_no_other_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def measure(request: ProfileRequest, runtime: str, *_: object, **__: object) -> Profile:
        if runtime in broken:
            raise RuntimeError(f"no kernel for {runtime}\nand a long trace")
        return profile_of(request, runtime, 1.0)

    monkeypatch.setattr(module, "_measure", measure)
    c = candidate()
    save_model(assemble(c), c, tmp_path)
    broken = {"pytorch", "pytorch_bf16"}
    found = profiled(tmp_path, c, runtime="pytorch", also=["onnxruntime", "pytorch_bf16"])
    assert found.conditions.runtime == "onnxruntime"
    assert found.failed == {name: f"RuntimeError: no kernel for {name}" for name in ("pytorch", "pytorch_bf16")}
    broken |= {"onnxruntime"}
    with pytest.raises(MeasurementError, match="no kernel for pytorch"):
        profiled(tmp_path, c, runtime="pytorch", also=["onnxruntime"])


def test_a_file_that_cannot_be_made_takes_no_other_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    c = candidate()
    for error in (ValueError("no such operator"), FileNotFoundError("no compiler")):
        monkeypatch.setattr("vitsearch.profile.files.export_onnx", raising(error))
        made, errors = files_for(["pytorch", "onnxruntime"], assemble(c), c, tmp_path, None)
        assert (set(made), set(errors)) == ({"weights"}, {"onnx"})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is a Linux device")
@pytest.mark.parametrize(
    "runtime", ["onnxruntime", *(pytest.param(name, marks=pytest.mark.slow) for name in INT8)]
)
def test_a_full_disk_is_not_the_models_fault(runtime: str, tmp_path: Path):
    """Its measurement failed for good, though the next try might find room."""
    data, c = tensor_data(size=8), candidate(WIDE, precision=W8A8)
    model = quantised(c, data)
    for name in ("model.onnx", "model.int8-dynamic.onnx", "model.int8-qdq.onnx"):
        (tmp_path / f"{name}.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        files_for([runtime], model, c, tmp_path, data)


def raising(error: Exception) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_every_runtime_computes_the_same(tmp_path: Path):
    """Each from what a target is sent: a file, and the candidate."""
    data = tensor_data(size=8)
    c = candidate(WIDE, tokens={"reducer": "tome", "r": 2})
    model = quantised(c, data)
    save_model(model, c, tmp_path)
    images = sample_images(data).normalized(np.arange(2))
    with torch.inference_mode():
        exact = model(torch.from_numpy(images)).numpy()
    target = TargetSpec(batch_size=2)
    names = ["pytorch", "onnxruntime", *(["openvino"] if facts.is_installed("openvino") else [])]
    files, errors = files_for(names, model, c, tmp_path, data)
    assert not errors
    for name in names:
        runnable = RUNTIMES[name](Model(file=files[TABLE[name].file], candidate=c), target)
        np.testing.assert_allclose(runnable.run(images), exact, rtol=1e-3, atol=1e-4, err_msg=name)
        runnable.close()


@pytest.mark.slow
def test_a_compiled_network_computes_the_same(tmp_path: Path):
    c = candidate(WIDE, tokens={"reducer": "evit", "keep": 0.5})
    model = assemble(c)
    save_model(model, c, tmp_path)
    images = np.random.default_rng(0).standard_normal((1, 1, 8, 8), dtype=np.float32)
    runnable = RUNTIMES["pytorch_compiled"](Model(file=tmp_path / "model.safetensors", candidate=c), TargetSpec())
    with torch.inference_mode():
        np.testing.assert_allclose(runnable.run(images), model(torch.from_numpy(images)).numpy(), atol=1e-4)
    runnable.close()


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What has been done with compiled graphs, which are run as they were traced: that takes no compiler."""
    done: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Any:
        def run(*arguments: torch.Tensor) -> Any:
            done.append("run")
            return graph.forward(*arguments)

        done.append("made")
        return run

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    return done


def test_however_many_networks_were_compiled_before_the_next_one_is(graphs: list[str], tmp_path: Path):
    """The compiler's limit is one of all networks in a process: the ninth ran as it was, under another's name."""
    for number in range(10):
        c = candidate({"width": 4 * (number + 1), "depth": 1})
        save_model(assemble(c), c, tmp_path)
        runnable = RUNTIMES["pytorch_compiled"](
            Model(file=tmp_path / "model.safetensors", candidate=c), TargetSpec()
        )
        graphs.clear()
        for _ in range(2):
            runnable.run(np.zeros((1, 1, 8, 8), np.float32))
        assert graphs == ["made", "run", "run"], number
        runnable.close()


def test_a_network_that_is_no_longer_compiled_fails(
    graphs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pytorch, "MOST_GRAPHS", 2)
    c = candidate({"depth": 1})
    save_model(assemble(c), c, tmp_path)
    runnable = RUNTIMES["pytorch_compiled"](Model(file=tmp_path / "model.safetensors", candidate=c), TargetSpec())
    for batch in (1, 2):
        runnable.run(np.zeros((batch, 1, 8, 8), np.float32))
    with pytest.raises(Exception, match="recompile_limit"):
        runnable.run(np.zeros((3, 1, 8, 8), np.float32))
    runnable.close()


def test_images_are_normalised_as_in_training(tmp_path: Path):
    data = tensor_data(size=8)
    (batch, labels), *_ = sample_images(data).batches(5)
    (exact, classes), *_ = normalized_batches(data, data.source.val, 5)
    np.testing.assert_allclose(batch, exact.numpy(), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(labels, classes.numpy())


def test_a_target_that_lacks_a_runtime_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "is_installed", lambda library: library != "openvino")
    found = profiled(tmp_path, candidate(), runtime="openvino", also=["onnxruntime"])
    assert found.conditions.runtime.startswith("onnxruntime ")
    said = "openvino is not installed on target 'desk'; there: pip install 'vitsearch[openvino]'"
    assert found.failed == {"openvino": f"RuntimeError: {said}"}


def test_a_target_needs_neither_pytorch_nor_the_code_that_trains(tmp_path: Path):
    """It measures a file, with nothing but the runtime and numpy."""
    c = candidate()
    save_model(assemble(c), c, tmp_path)
    files, _ = files_for(["onnxruntime"], load_model(c, tmp_path), c, tmp_path, None)
    target = TargetSpec(runtime="onnxruntime", repeats=3)
    request = ProfileRequest(trial=0, artifact_dir="nowhere", candidate=c, target=target)
    code = """
import sys
from pathlib import Path
for name in ("torch", "timm", "vitsearch.train", "vitsearch.models", "vitsearch.trial", "optuna", "mlflow"):
    sys.modules[name] = None
from vitsearch.messages import ProfileRequest
from vitsearch.profile import run_profile
request = ProfileRequest.model_validate_json(sys.argv[1])
print(run_profile(request, {"onnx": Path(sys.argv[2])}).model_dump_json())
"""
    command = [sys.executable, "-c", code, request.model_dump_json(), str(files["onnx"])]
    found = Profile.model_validate_json(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert found.latency_ms_p50 > 0
    assert found.conditions.runtime.startswith("onnxruntime ")


def test_what_is_known_is_not_measured_again(tmp_path: Path):
    c = candidate()
    save_model(assemble(c), c, tmp_path)
    target = TargetSpec(runtime="onnxruntime", also=("pytorch",), repeats=3)
    request = ProfileRequest(trial=0, artifact_dir=str(tmp_path), candidate=c, target=target)
    known = profile_of(request, "onnxruntime 1.0", 1e-9)
    request = request.model_copy(update={"known": (known,)})
    found = run_profile(request, {"weights": tmp_path / "model.safetensors"})
    assert found.model_copy(update={"others": ()}) == known
    assert [one.conditions.runtime.partition(" ")[0] for one in found.others] == ["pytorch"]
