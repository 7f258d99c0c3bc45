from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.unit.train.factory import CPU, image_data, spec, tensor_data
from tests.unit.trial.factory import COMPRESSED, candidate, context, request
from vitsearch.artifacts import claim
from vitsearch.candidate import PRUNERS
from vitsearch.config import DatasetSpec, EvaluateSpec, TrainSpec
from vitsearch.cost import cost_of
from vitsearch.errors import TrialError, WorkerError
from vitsearch.messages import EpochReport, TrialFailure, TrialResult
from vitsearch.models import VisionTransformer, build_dense
from vitsearch.search.places import forget_checkpoints
from vitsearch.train.checkpoint import EpochCheckpoint
from vitsearch.train.data import load_dataset
from vitsearch.train.evaluate import evaluate
from vitsearch.train.tensors import TensorData
from vitsearch.trial import TrialStopped, load_model, run_trial
from vitsearch.trial import run as module


def succeeded(outcome: TrialResult | TrialFailure) -> TrialResult:
    assert isinstance(outcome, TrialResult), outcome
    return outcome


def failed(
    outcome: TrialResult | TrialFailure, stage: str, failure: str, *, retryable: bool = False
) -> TrialFailure:
    assert isinstance(outcome, TrialFailure), outcome
    assert (outcome.stage, outcome.failure, outcome.retryable) == (stage, failure, retryable), outcome.message
    assert outcome.trial == 3
    assert TrialFailure.model_validate_json(outcome.model_dump_json()) == outcome
    return outcome


@pytest.fixture(scope="module")
def digits() -> TensorData:
    return TensorData(load_dataset(DatasetSpec(kind="digits"), image_size=8, seed=0), CPU)


@pytest.mark.parametrize("parts", [{}, COMPRESSED], ids=["dense", "pruned, tome, W8A8"])
def test_digits_end_to_end(parts: dict[str, Any], digits: TensorData, tmp_path: Path):
    changes = {"num_classes": 10, "width": 32, "depth": 2}
    c = candidate(architecture=changes, **parts)
    recipe = TrainSpec(epochs=4, batch_size=32, lr=3e-3, autocast="fp32")
    wanted = request(
        tmp_path,
        c,
        train=recipe,
        data_fingerprint=digits.source.fingerprint,
        evaluate=EvaluateSpec(batch_size=100),
    )
    result = succeeded(run_trial(wanted, context(digits)))
    assert result.accuracy > 2 * digits.source.chance_accuracy
    assert (result.trial, result.epochs_run, result.split, result.autocast) == (3, 4, "val", "fp32")
    assert 0 < result.train_s <= result.total_s
    model = load_model(c, tmp_path)
    score = evaluate(model, digits, digits.source.val, batch_size=100)
    assert (score.accuracy, score.loss) == (result.accuracy, result.loss)
    assert sum(p.numel() for p in model.parameters()) == result.num_params
    assert TrialResult.model_validate_json(result.model_dump_json()) == result


@pytest.mark.parametrize("parts", [{}, COMPRESSED], ids=["dense", "compressed"])
def test_the_same_request_gives_the_same_result(parts: dict[str, Any], tmp_path: Path):
    c = candidate(**parts)
    results = []
    for name in ("a", "b"):
        torch.manual_seed(len(results))
        results.append(succeeded(run_trial(request(tmp_path / name, c), context())))
    times = {"train_s": 0.0, "total_s": 0.0}
    assert results[0].model_copy(update=times) == results[1].model_copy(update=times)
    assert results[0].weights_sha256 == results[1].weights_sha256
    other = succeeded(run_trial(request(tmp_path / "c", c, seed=12), context()))
    assert other.weights_sha256 != results[0].weights_sha256


def test_an_abandoned_trial_resumes_to_the_same_result(tmp_path: Path):
    c = candidate(**COMPRESSED)
    whole = succeeded(run_trial(request(tmp_path / "a", c, train=spec(epochs=4)), context()))
    reports: list[EpochReport] = []
    batches_after = 0

    def stop_in_epoch_3() -> None:
        nonlocal batches_after
        batches_after += len(reports) == 2
        if batches_after == 2:
            raise TrialStopped

    wanted = request(tmp_path / "b", c, train=spec(epochs=4))
    with pytest.raises(TrialStopped):
        run_trial(wanted, context(on_epoch=reports.append, on_batch=stop_in_epoch_3))
    again = succeeded(run_trial(wanted.model_copy(update={"attempt": 2}), context(on_epoch=reports.append)))
    assert [(report.epoch, report.epochs) for report in reports] == [(1, 4), (2, 4), (3, 4), (4, 4), (1, 1)]
    assert again.weights_sha256 == whole.weights_sha256
    assert again.accuracy == whole.accuracy


EVERY_RUN_OF_TRAINING: list[dict[str, Any]] = [
    {**COMPRESSED, "precision": {"weight_bits": 4, "activation_bits": 4, "noisy": True, "training": "lsq"}},
    {
        "tokens": {"reducer": "dynamicvit", "keep": 0.6},
        "sparsity": {"method": "wdpruning", "mlp_units": 20, "heads": 1, "steps": 2, "mask": "2:4"},
        "precision": {"weight_bits": 4, "activation_bits": 8, "training": "ste"},
    },
    {
        "tokens": {"reducer": "topk", "score": "learned", "keep": 0.5},
        "sparsity": {"method": "vtp", "width": 12, "mlp_units": 20, "heads": 1, "steps": 2},
    },
    {"sparsity": {"method": "xpruner", "macs_ratio": 0.7}, "precision": {"weight_bits": 8, "activation_bits": 8}},
    {"tokens": {"reducer": "ps_vit", "epsilon": 0.5}, "sparsity": {"method": "taylor", "heads": 1}},
]


@pytest.mark.parametrize("parts", EVERY_RUN_OF_TRAINING, ids=str)
def test_a_trial_lost_after_any_epoch_repeats_none(parts: dict[str, Any], tmp_path: Path):
    c = candidate(**parts)
    recipe = spec(epochs=2, finetune_epochs=4, qat_epochs=2)
    reports: list[tuple[int, int]] = []

    def kept(report: EpochReport) -> None:
        reports.append((report.epoch, report.epochs))

    def lost_at_once(report: EpochReport) -> None:
        kept(report)
        raise TrialStopped

    whole = succeeded(run_trial(request(tmp_path / "a", c, train=recipe), context(on_epoch=kept)))
    expected = list(reports)
    reports.clear()
    for attempt in range(1, len(expected) + 1):
        torch.manual_seed(attempt)
        wanted = request(tmp_path / "b", c, train=recipe, attempt=attempt)
        with pytest.raises(TrialStopped):
            run_trial(wanted, context(on_epoch=lost_at_once))
    again = succeeded(run_trial(request(tmp_path / "b", c, train=recipe), context(on_epoch=kept)))
    assert reports == expected
    assert (again.weights_sha256, again.accuracy) == (whole.weights_sha256, whole.accuracy)


@pytest.mark.parametrize("store", [False, True], ids=["folder", "store"])
@pytest.mark.parametrize("taken_over_after", [0, 1, 3])
def test_a_worker_taken_for_lost_leaves_the_files_to_the_next_attempt(
    taken_over_after: int, store: bool, tmp_path: Path
):
    """Cut off from the head, but not from a file system that it shares with the one that takes over."""
    place = f"file://{tmp_path}" if store else str(tmp_path)
    found: list[TrialResult] = []

    def next_attempt() -> None:
        other = request(tmp_path, artifact_dir=place, seed=12, claim=claim(place))  # as if of another arithmetic
        found.append(succeeded(run_trial(other, context())))
        forget_checkpoints(place)

    if taken_over_after == 0:  # it waits for the machine until all is over
        next_attempt()
    first = request(tmp_path, artifact_dir=place, train=spec(epochs=3))
    on_epoch = lambda report: next_attempt() if report.epoch == taken_over_after else None  # noqa: E731
    with pytest.raises(WorkerError, match="another attempt at the trial has begun elsewhere"):
        run_trial(first, context(on_epoch=on_epoch))
    content = (tmp_path / found[0].weights_file).read_bytes()
    assert hashlib.sha256(content).hexdigest() == found[0].weights_sha256
    assert not list(tmp_path.glob("epoch*")), "what nobody would go on from"


def test_a_trial_lost_while_it_ends_trains_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = spec(epochs=9, lr=1e-9, min_lr=0)
    wanted = request(tmp_path, train=recipe, accuracy_to_beat=0.99)
    reports: list[EpochReport] = []

    def lost(*_: object, **__: object) -> None:
        raise TrialStopped

    with monkeypatch.context() as patched:
        patched.setattr(module, "evaluate", lost)
        with pytest.raises(TrialStopped):
            run_trial(wanted, context(on_epoch=reports.append))
    assert len(reports) == 3
    easier = wanted.model_copy(update={"accuracy_to_beat": None})
    result = succeeded(run_trial(easier, context(on_epoch=reports.append)))
    assert (len(reports), result.epochs_run, result.stopped_early) == (3, 3, True)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 12},
        {"train": spec(epochs=5)},
        {"train": spec(epochs=4, lr=5e-3)},
        {"candidate": candidate(precision={"weight_bits": 8})},
        {"data": image_data(45)},
    ],
    ids=["seed", "epochs", "recipe", "candidate", "data"],
)
def test_a_checkpoint_of_something_else_is_not_continued(changes: dict[str, Any], tmp_path: Path):
    data = TensorData(changes.pop("data", None) or image_data(), CPU)
    reports: list[EpochReport] = []

    def stop() -> None:
        if len(reports) == 2:
            raise TrialStopped

    with pytest.raises(TrialStopped):
        run_trial(request(tmp_path, train=spec(epochs=4)), context(on_epoch=reports.append, on_batch=stop))
    assert (tmp_path / "epoch.pt").exists()
    reports.clear()
    settings = {"train": spec(epochs=4), "data_fingerprint": data.source.fingerprint, **changes}
    succeeded(run_trial(request(tmp_path, **settings), context(data, on_epoch=reports.append)))
    assert (reports[0].epoch, reports[0].epochs) == (1, settings["train"].epochs)


def test_trial_stopped_passes_through_from_every_stage(tmp_path: Path):
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1

    wanted = request(tmp_path / "whole", candidate(**COMPRESSED))
    succeeded(run_trial(wanted, context(on_batch=count)))
    assert calls > 10
    for last in {1, calls // 2, calls - 4, calls}:
        left = last

        def stop() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise TrialStopped

        with pytest.raises(TrialStopped):
            run_trial(request(tmp_path / str(last), candidate(**COMPRESSED)), context(on_batch=stop))
        assert not (tmp_path / str(last) / "model.safetensors").exists()


def test_other_data_is_the_workers_fault(tmp_path: Path):
    outcome = run_trial(request(tmp_path, data_fingerprint="0" * 16), context())
    failure = failed(outcome, "data", "other_data", retryable=True)
    assert "0" * 16 in failure.message


def test_the_test_split_is_read_when_asked_for_and_only_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data, read = tensor_data(), set()
    raw = data.raw

    def recorded(indices: Tensor) -> Tensor:
        read.update(indices.tolist())
        return raw(indices)

    monkeypatch.setattr(data, "raw", recorded)
    succeeded(run_trial(request(tmp_path / "val", candidate(**COMPRESSED)), context(data)))
    assert not read & set(data.source.test.tolist())
    wanted = request(tmp_path / "test", candidate(**COMPRESSED), split="test")
    result = succeeded(run_trial(wanted, context(data)))
    assert set(data.source.test.tolist()) <= read
    score = evaluate(load_model(wanted.candidate, tmp_path / "test"), data, data.source.test, batch_size=7)
    assert (result.split, result.accuracy) == ("test", score.accuracy)


@pytest.mark.parametrize(("images", "expected"), [(10, 10), (1000, 42)])
def test_calibration_reads_training_images_only(
    images: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    data, used = tensor_data(), []
    calibrate = module.calibrate

    def recorded(model: nn.Module, batches: Any) -> None:
        kept = list(batches)
        used.extend(kept)
        calibrate(model, kept)

    monkeypatch.setattr(module, "calibrate", recorded)
    evaluated = EvaluateSpec(batch_size=7, calibration_images=images)
    wanted = request(tmp_path, candidate(**COMPRESSED), evaluate=evaluated)
    succeeded(run_trial(wanted, context(data)))
    calibrating = torch.cat(used)
    assert len(calibrating) == expected
    training = data.normalized(torch.from_numpy(data.source.train))
    matches = [(training == image).flatten(1).all(1).nonzero().flatten().tolist() for image in calibrating]
    assert all(len(match) == 1 for match in matches), "every one is a training image, none twice"
    assert len({match[0] for match in matches}) == expected


def test_float_candidates_are_not_calibrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "calibrate", lambda *_: pytest.fail("calibrated"))
    succeeded(run_trial(request(tmp_path), context()))


def test_fine_tuning_follows_pruning_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runs: list[tuple[bool, TrainSpec, int | None]] = []
    train = module.train

    def recorded(model: VisionTransformer, data: TensorData, recipe: TrainSpec, **kwargs: Any) -> Any:
        runs.append((model.blocks[0].reducer is not None, recipe, kwargs.get("epochs")))
        return train(model, data, recipe, **kwargs)

    monkeypatch.setattr(module, "train", recorded)
    succeeded(
        run_trial(request(tmp_path / "a", candidate(**COMPRESSED), train=spec(finetune_epochs=2)), context())
    )
    assert [(reduced, epochs) for reduced, _, epochs in runs] == [(False, None), (True, 2)]
    assert runs[1][1].lr == pytest.approx(runs[0][1].lr * module.FINETUNE_LR_SHARE)
    assert (runs[1][1].warmup_epochs, runs[1][1].early_stop) == (0.0, False)
    runs.clear()
    unpruned = {k: v for k, v in COMPRESSED.items() if k != "sparsity"}
    succeeded(run_trial(request(tmp_path / "b", candidate(**unpruned)), context()))
    succeeded(
        run_trial(request(tmp_path / "c", candidate(**COMPRESSED), train=spec(finetune_epochs=0)), context())
    )
    assert len(runs) == 2


@pytest.mark.parametrize("method", PRUNERS)
def test_every_ranking_and_schedule_in_a_trial(method: str, tmp_path: Path):
    one = candidate(
        tokens={"reducer": "tome", "r": 2},
        sparsity={
            "method": method, "blocks": 1, "width": 12, "heads": 1, "qk_dim": 3, "v_dim": 5, "mlp_units": 20,
            "steps": 2, "schedule": "cubic",
        },
        precision={"weight_bits": 8, "activation_bits": 8},
    )  # fmt: skip
    epochs: list[EpochReport] = []
    recipe = spec(epochs=1, finetune_epochs=4)
    result = succeeded(run_trial(request(tmp_path, one, train=recipe), context(on_epoch=epochs.append)))
    assert len(epochs) == 5
    assert result.num_params == cost_of(one).num_params
    data = tensor_data()
    again = evaluate(load_model(one, tmp_path), data, data.source.val, batch_size=7)
    assert again.accuracy == result.accuracy


def test_a_budget_of_macs_in_a_trial(tmp_path: Path):
    one = candidate(
        sparsity={"method": "taylor", "macs_ratio": 0.6}, precision={"weight_bits": 8, "activation_bits": 8}
    )
    result = succeeded(run_trial(request(tmp_path, one, train=spec(epochs=1, finetune_epochs=1)), context()))
    data = tensor_data()
    again = load_model(one, tmp_path)
    assert again.widths != one.widths
    assert evaluate(again, data, data.source.val, batch_size=7).accuracy == result.accuracy


def test_the_dense_accuracy_stands_beside_the_compressed_one(tmp_path: Path):
    harsh = candidate(precision={"weight_bits": 1, "activation_bits": 4})
    recipe = spec(epochs=12, lr=1e-2)
    result = succeeded(run_trial(request(tmp_path / "a", harsh, train=recipe), context()))
    dense = succeeded(run_trial(request(tmp_path / "b", train=recipe), context()))
    assert result.dense_accuracy == dense.dense_accuracy == dense.accuracy
    assert result.accuracy < result.dense_accuracy


def test_a_run_that_cannot_win_ends_early(tmp_path: Path):
    recipe = spec(epochs=9, lr=1e-9, min_lr=0)
    result = succeeded(run_trial(request(tmp_path, train=recipe, accuracy_to_beat=0.99), context()))
    assert (result.epochs_run, result.stopped_early) == (3, True)
    assert (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize(
    "recipe", [spec(lr=1e30, optimizer="sgd", clip_grad_norm=0), spec(lr=1e30)], ids=["sgd", "adamw"]
)
def test_a_loss_that_explodes(recipe: TrainSpec, tmp_path: Path):
    failed(run_trial(request(tmp_path, train=recipe), context()), "train", "nan_loss")


def test_poisoned_images(tmp_path: Path):
    data = tensor_data()
    data.mean = torch.tensor([math.nan])
    failed(run_trial(request(tmp_path), context(data)), "train", "nan_loss")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("no more"),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
    ids=["python", "cuda", "cpu allocator"],
)
@pytest.mark.parametrize("stage", ["build", "train", "compress", "evaluate"])
def test_out_of_memory(stage: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    name = {"build": "build_dense", "compress": "insert_quantizers"}.get(stage, stage)

    def broken(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(module, name, broken)
    failure = failed(run_trial(request(tmp_path), context()), stage, "out_of_memory")
    assert str(error) in failure.message


def test_out_of_memory_in_the_middle_of_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(VisionTransformer, "run_blocks", broken)
    failed(run_trial(request(tmp_path), context()), "train", "out_of_memory")


def test_what_the_allocator_of_the_cpu_really_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """2**52 bytes are more than an address space holds."""
    monkeypatch.setattr(module, "build_dense", lambda *_, **__: torch.empty(2**50))
    failed(run_trial(request(tmp_path), context()), "build", "out_of_memory")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is a Linux device")
def test_a_full_disk_is_worth_another_try(tmp_path: Path):
    for name, stage in (("model.safetensors.partial", "evaluate"), ("epoch.partial", "train")):
        folder = tmp_path / stage
        folder.mkdir()
        (folder / name).symlink_to("/dev/full")
        failed(run_trial(request(folder), context()), stage, "storage", retryable=True)


def test_a_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").touch()
    failed(run_trial(request(tmp_path / "file" / "trial"), context()), "build", "storage", retryable=True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is a Linux device")
def test_a_full_disk_after_training_does_not_train_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "model.safetensors.partial").symlink_to("/dev/full")
    wanted = request(tmp_path, train=spec(epochs=3))
    failed(run_trial(wanted, context()), "evaluate", "storage", retryable=True)
    (tmp_path / "model.safetensors.partial").unlink()
    reports: list[EpochReport] = []
    succeeded(run_trial(wanted, context(on_epoch=reports.append)))
    assert reports == []


def test_a_result_that_never_arrived_costs_no_training(tmp_path: Path):
    wanted = request(tmp_path, train=spec(epochs=3))
    first = succeeded(run_trial(wanted, context()))
    reports: list[EpochReport] = []
    again = succeeded(run_trial(wanted, context(on_epoch=reports.append)))
    assert reports == []
    assert (again.weights_sha256, again.accuracy) == (first.weights_sha256, first.accuracy)


def test_anything_else_is_unexpected_and_names_its_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(module, "insert_quantizers", broken)
    failure = failed(run_trial(request(tmp_path), context()), "compress", "unexpected")
    assert "ZeroDivisionError: oops" in failure.message
    monkeypatch.undo()
    monkeypatch.setattr(EpochCheckpoint, "__init__", broken)  # outside every stage
    failure = failed(run_trial(request(tmp_path), context()), "worker", "unexpected")
    assert "ZeroDivisionError" in failure.message


def test_a_broken_device_is_the_workers_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: Any) -> Tensor:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(VisionTransformer, "run_blocks", broken)
    with pytest.raises(WorkerError, match="stage train: CUDA error"):
        run_trial(request(tmp_path), context())


def test_training_starts_from_trained_weights_where_the_recipe_says_so(tmp_path: Path):
    start = spec(init="pretrained", pretrained={"timm": "any"}, epochs=1, lr=1e-9, min_lr=0, warmup_epochs=0)
    failed(run_trial(request(tmp_path / "a", train=start), context()), "build", "no_weights", retryable=True)
    dense = candidate()
    source = build_dense(dense.architecture)
    succeeded(run_trial(request(tmp_path / "b", dense, train=start), context(start=source)))
    trained = load_model(dense, tmp_path / "b")
    torch.testing.assert_close(trained.blocks[0].mlp.fc1.weight, source.blocks[0].mlp.fc1.weight)


def test_errors_of_the_context_are_the_contexts(tmp_path: Path):
    def broken() -> None:
        raise TrialError("data", "corrupt_image", "image 7 is broken")

    failure = failed(run_trial(request(tmp_path), context(on_batch=broken)), "data", "corrupt_image")
    assert failure.message == "image 7 is broken"


def test_num_params_are_those_of_the_pruned_network(tmp_path: Path):
    dense = succeeded(run_trial(request(tmp_path / "a"), context()))
    pruned = succeeded(run_trial(request(tmp_path / "b", candidate(**COMPRESSED)), context()))
    assert pruned.num_params < dense.num_params


def test_images_of_the_context_are_never_written(tmp_path: Path):
    data = tensor_data()
    before = data.source.images_NHWC.copy()
    everything = spec(mixup=0.5, cutmix=0.5, flip=0.5, crop_padding_px=2, erasing=0.5, randaugment_ops=2)
    succeeded(run_trial(request(tmp_path, candidate(**COMPRESSED), train=everything), context(data)))
    assert np.array_equal(data.source.images_NHWC, before)
