from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.unit.train.factory import CPU, architecture, flat_weights, network, spec, tensor_data
from vitsearch.config import RECIPES, DatasetSpec, TrainSpec
from vitsearch.errors import TrialError
from vitsearch.messages import EpochReport
from vitsearch.models import Attention, build_dense
from vitsearch.train.autocast import MODES
from vitsearch.train.batches import Batch, TrainingBatches, repeated, split_evenly
from vitsearch.train.checkpoint import EpochCheckpoint
from vitsearch.train.data import load_dataset
from vitsearch.train.evaluate import evaluate
from vitsearch.train.loop import Hooks, TrainOutcome, train
from vitsearch.train.losses import Outputs, classification_loss
from vitsearch.train.seeds import seed_everything
from vitsearch.train.tensors import TensorData

EVERYTHING: dict[str, Any] = {
    "mixup": 0.4, "cutmix": 1.0, "label_smoothing": 0.1, "randaugment_ops": 2, "flip": 0.5, "crop_padding_px": 1,
    "erasing": 0.5, "drop_path": 0.2, "dropout": 0.1,
}  # fmt: skip


class InterruptionError(Exception):
    pass


def trained(seed: int = 0, *, hooks: Hooks | None = None, size: int = 42, **changes: Any) -> Tensor:
    recipe = spec(**changes)
    model = network(drop_path=recipe.drop_path, dropout=recipe.dropout)
    train(model, tensor_data(size), recipe, seed=seed, hooks=hooks or Hooks())
    return flat_weights(model)


@pytest.mark.parametrize("changes", [{}, EVERYTHING], ids=["plain", "everything"])
def test_the_seed_decides_everything(changes: dict[str, Any]):
    one = trained(5, **changes)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 - what other code did to the generators must not matter
    assert torch.equal(one, trained(5, **changes))
    assert not torch.equal(one, trained(6, **changes))


@pytest.mark.parametrize("interrupt_in", [2, 4])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lamb", "lion", "nadamw"])
def test_a_resumed_run_ends_like_one_never_interrupted(tmp_path: Path, interrupt_in: int, optimizer: str):
    settings = {**EVERYTHING, "epochs": 4, "optimizer": optimizer, "warmup_epochs": 1.5}
    expected = trained(**settings)
    reports: list[EpochReport] = []
    calls = 0

    def interrupt() -> None:
        nonlocal calls
        calls += 1
        if len(reports) == interrupt_in - 1 and calls > 4 * (interrupt_in - 1) + 1:
            raise InterruptionError

    def hooks(on_batch: Any = lambda: None) -> Hooks:
        checkpoint = EpochCheckpoint(tmp_path / "deep" / "epoch.pt", "me")
        return Hooks(on_epoch=reports.append, on_batch=on_batch, checkpoint=checkpoint)

    with pytest.raises(InterruptionError):
        trained(hooks=hooks(interrupt), **settings)
    torch.manual_seed(1234)
    assert torch.equal(trained(hooks=hooks(), **settings), expected)
    assert [report.epoch for report in reports] == [1, 2, 3, 4]


def test_an_interruption_in_the_first_epoch_starts_again(tmp_path: Path):
    checkpoint = EpochCheckpoint(tmp_path / "epoch.pt", "me")

    def interrupt() -> None:
        raise InterruptionError

    with pytest.raises(InterruptionError):
        trained(hooks=Hooks(on_batch=interrupt, checkpoint=checkpoint))
    assert not checkpoint.path.exists()
    assert torch.equal(trained(hooks=Hooks(checkpoint=checkpoint)), trained())


def test_the_history_survives_an_interruption(tmp_path: Path):
    """The decision to end early needs every epoch's accuracy, also those before the restart."""
    checkpoint = EpochCheckpoint(tmp_path / "epoch.pt", "me")

    def stop_after_two(report: EpochReport) -> None:
        if report.epoch == 2:  # what is reported is saved
            raise InterruptionError

    with pytest.raises(InterruptionError):
        trained(epochs=6, lr=1e-9, min_lr=0, hooks=Hooks(on_epoch=stop_after_two, checkpoint=checkpoint))
    again = EpochCheckpoint(checkpoint.path, "me")
    model = network()
    outcome = train(
        model, tensor_data(), spec(epochs=6, lr=1e-9, min_lr=0), seed=0,
        hooks=Hooks(checkpoint=again, accuracy_to_beat=1.0),
    )  # fmt: skip
    assert outcome.epochs_run == 3
    assert outcome.stopped_early


def test_reports_and_outcome():
    reports: list[EpochReport] = []
    model = network()
    data = tensor_data()
    batches = 0

    def count() -> None:
        nonlocal batches
        batches += 1

    recipe = spec(epochs=3)
    outcome = train(model, data, recipe, seed=0, trial=7, hooks=Hooks(on_epoch=reports.append, on_batch=count))
    assert [(r.trial, r.epoch, r.epochs) for r in reports] == [(7, 1, 3), (7, 2, 3), (7, 3, 3)]
    assert all(r.images_per_s > 0 and math.isfinite(r.train_loss) for r in reports)
    score = evaluate(model, data, data.source.val, batch_size=5)
    assert outcome == TrainOutcome(epochs_run=3, accuracy=score.accuracy, stopped_early=False)
    assert reports[-1].accuracy == score.accuracy
    assert batches == 3 * (round(42 / 16) + 1), "between batches of training and of validation"
    assert not model.training


def test_epochs_override_the_recipe():
    assert train(network(), tensor_data(), spec(epochs=9), seed=0, epochs=1).epochs_run == 1


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_trains_an_epoch(recipe: str):
    found = RECIPES[recipe].model_copy(update={"autocast": "fp32"})
    assert found.recipe == recipe
    for channels in (1, 3):
        model = network(drop_path=found.drop_path, in_chans=channels)
        before = flat_weights(model)
        outcome = train(model, tensor_data(channels=channels), found, seed=0, epochs=1)
        assert outcome.epochs_run == 1
        assert not torch.equal(flat_weights(model), before)


@pytest.mark.parametrize("mode", MODES)
def test_every_number_format_trains(mode: str):
    model = network()
    fused: set[bool] = set()

    class Term:
        def __call__(self, outputs: Outputs, batch: Batch) -> Tensor:
            fused.update(m.fused for m in model.modules() if isinstance(m, Attention))
            assert outputs.logits_BK.dtype == torch.float32
            return F.cross_entropy(outputs.logits_BK, batch.targets)

    before = flat_weights(model)
    train(model, tensor_data(), spec(autocast=mode), seed=0, loss_terms=(Term(),))
    after = flat_weights(model)
    assert after.dtype == torch.float32
    assert not torch.equal(before, after)
    assert after.isfinite().all()
    assert fused == {mode != "bf16_unfused"}
    assert all(m.fused for m in model.modules() if isinstance(m, Attention)), "what is measured later is fused"


def test_bf16_differs_from_fp32():
    assert not torch.equal(trained(autocast="bf16_fused"), trained(autocast="fp32"))


def learning_rates(monkeypatch: pytest.MonkeyPatch, size: int = 48, **changes: Any) -> list[float]:
    """The rate of each step, as the optimiser uses it."""
    found: list[float] = []

    class Recorder:
        def __call__(self, outputs: Outputs, batch: Batch) -> Tensor:
            return F.cross_entropy(outputs.logits_BK, batch.targets)

    step = torch.optim.AdamW.step

    def recorded(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        found.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", recorded)
    train(network(), tensor_data(size), spec(**changes), seed=0, loss_terms=(Recorder(),))
    return found


def test_warm_up_and_cosine(monkeypatch: pytest.MonkeyPatch):
    """3 steps an epoch, 2 of 8 epochs warm up: linear from lr/100, then a whole cosine over the other 18 steps."""
    found = learning_rates(monkeypatch, epochs=8, lr=1e-2, min_lr=1e-4, warmup_epochs=2.0)
    assert len(found) == 24
    expected = [
        1e-4 + t * (1e-2 - 1e-4) / 6
        if t < 6
        else 1e-4 + (1e-2 - 1e-4) * (1 + math.cos(math.pi * (t - 6) / 18)) / 2
        for t in range(24)
    ]
    assert found == pytest.approx(expected)


def test_no_warm_up_starts_at_the_peak(monkeypatch: pytest.MonkeyPatch):
    found = learning_rates(monkeypatch, epochs=4, lr=1e-2, min_lr=1e-4, warmup_epochs=0.0)
    assert found[0] == pytest.approx(1e-2)
    assert found == sorted(found, reverse=True)
    assert found[-1] == pytest.approx(1e-4, rel=2)


def test_a_long_warm_up_leaves_half_of_a_short_run(monkeypatch: pytest.MonkeyPatch):
    """The rate rises for one epoch of two, reaches its peak, and falls for the other."""
    found = learning_rates(monkeypatch, epochs=2, lr=1e-2, min_lr=0, warmup_epochs=5.0)
    assert found[:3] == pytest.approx([1e-4 + t * (1e-2 - 1e-4) / 3 for t in range(3)])
    assert found[3:] == pytest.approx([1e-2 * (1 + math.cos(math.pi * t / 3)) / 2 for t in (0, 1, 2)])


def test_weight_decay_spares_norms_biases_tokens_and_positions(monkeypatch: pytest.MonkeyPatch):
    groups: list[list[dict[str, Any]]] = []
    step = torch.optim.AdamW.step

    def recorded(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        groups.append(self.param_groups)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", recorded)
    model = network(distilled=True, layer_scale=True, pre_norm=True)
    train(model, tensor_data(), spec(weight_decay=0.3), seed=0, epochs=1)
    decay = {id(p): group["weight_decay"] for group in groups[0] for p in group["params"]}
    names = dict(model.named_parameters())
    assert set(decay) == {id(p) for p in names.values()}
    for name, parameter in names.items():
        matrix = name.endswith("weight") and "norm" not in name
        assert decay[id(parameter)] == (0.3 if matrix else 0.0), name


def test_gradients_are_clipped(monkeypatch: pytest.MonkeyPatch):
    norms: list[float] = []
    step = torch.optim.AdamW.step

    def recorded(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(float(torch.cat([g.flatten() for g in grads]).norm()))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", recorded)
    train(network(), tensor_data(), spec(clip_grad_norm=0.01), seed=0, epochs=1)
    assert max(norms) <= 0.0101
    norms.clear()
    train(network(), tensor_data(), spec(clip_grad_norm=0), seed=0, epochs=1)
    assert min(norms) > 0.02


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 31, 33, 42])
@pytest.mark.parametrize("mixup", [0.0, 0.5])
def test_every_image_is_seen_once_an_epoch(size: int, mixup: float):
    """Under mixup at most one image is left out, because timm's Mixup needs an even batch."""
    seen: list[int] = []
    soft: list[bool] = []
    data = tensor_data(size)

    class Count:
        def __call__(self, outputs: Outputs, batch: Batch) -> Tensor:
            seen.append(len(batch.images_BCHW))
            soft.append(batch.targets.dim() == 2)
            return outputs.logits_BK.square().mean()

    train(network(), data, spec(mixup=mixup), seed=0, epochs=1, loss_terms=(Count(),))
    assert sum(seen) == (size - size % 2 if mixup and size > 1 else size)
    assert len(seen) == max(1, math.ceil(size / 16))
    assert max(seen) - min(seen) <= 2
    assert all(soft) == (mixup > 0 and size > 1), "every batch is mixed, odd ones too"


def test_each_epoch_leaves_out_another_image():
    left = set()
    for epoch in range(5):
        seed_everything(0, epoch)
        order = torch.randperm(33)
        parts = split_evenly(order, 2, pairs=True)
        left |= set(range(33)) - set(torch.cat(list(parts)).tolist())
    assert len(left) > 1


@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_repeated_augmentation_shows_fewer_images_more_often(repeats: int):
    """As many views as images, those of one image in one batch, each augmented anew."""
    data = tensor_data(48)
    views: list[Tensor] = []
    for batch in TrainingBatches(data, spec(repeats=repeats, erasing=1.0)).epoch(0, seed=3):
        views += list(batch.images_BCHW)
    order = [repeated(torch.arange(48), repeats)[i].item() for i in range(48)]
    assert len(views) == 48
    assert len(set(order)) == math.ceil(48 / repeats)
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(views)), "no two views are alike"


@pytest.mark.parametrize("count", [2, 3, 16, 17, 33, 100, 1078])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 17])
def test_even_batches(count: int, steps: int):
    parts = split_evenly(torch.arange(count), steps, pairs=True)
    if steps > count // 2:
        return
    assert len(parts) == steps
    assert {len(part) % 2 for part in parts} == {0}
    assert torch.cat(list(parts)).tolist() == list(range(count - count % 2))
    assert max(map(len, parts)) - min(map(len, parts)) <= 2


def test_smoothing_is_applied_once():
    """Class indices are smoothed by the loss; targets of mixup come smoothed and are left as they are."""
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    images = torch.zeros(6, 1, 2, 2)
    loss = classification_loss(0.2)
    smooth = torch.full((6, 4), 0.05).scatter_(1, labels[:, None], 0.85)
    expected = -(smooth * logits.log_softmax(1)).sum(1).mean()
    for targets in (labels, smooth):
        batch = Batch(images_BCHW=images, targets=targets, epoch=0, step=0, start=0)
        torch.testing.assert_close(loss(Outputs(cls_BK=logits), batch), expected)


def test_targets_of_mixup_are_probabilities_with_the_smoothing_of_the_recipe():
    seen: list[Tensor] = []

    class Keep:
        def __call__(self, outputs: Outputs, batch: Batch) -> Tensor:
            seen.append(batch.targets)
            return outputs.logits_BK.square().mean()

    train(network(), tensor_data(), spec(mixup=0.5, label_smoothing=0.3), seed=0, epochs=1, loss_terms=(Keep(),))
    for targets in seen:
        torch.testing.assert_close(targets.sum(1), torch.ones(len(targets)))
        assert targets.min() >= 0.3 / 3 - 1e-6
        assert targets.max() <= 0.7 + 0.3 / 3 + 1e-6


def test_loss_terms_add_up():
    constants: list[float] = []

    class Constant(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = value

        def forward(self, outputs: Outputs, batch: Batch) -> Tensor:
            constants.append(self.value)
            return outputs.logits_BK.sum() * 0 + self.value

    reports: list[EpochReport] = []
    train(
        network(), tensor_data(), spec(), seed=0, epochs=1, hooks=Hooks(on_epoch=reports.append),
        loss_terms=(Constant(2.0), Constant(0.5)),
    )  # fmt: skip
    assert reports[0].train_loss == pytest.approx(2.5)
    assert set(constants) == {2.0, 0.5}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_an_error_about_the_candidate(value: float):
    class Broken:
        def __call__(self, outputs: Outputs, batch: Batch) -> Tensor:
            return outputs.logits_BK.sum() * value

    with pytest.raises(TrialError, match=r"epoch 1; lower train\.lr") as caught:
        train(network(), tensor_data(), spec(), seed=0, loss_terms=(Broken(),))
    assert (caught.value.stage, caught.value.kind, caught.value.retryable) == ("train", "nan_loss", False)


def test_a_run_that_cannot_win_ends_after_a_third(tmp_path: Path):
    checkpoint = EpochCheckpoint(tmp_path / "epoch.pt", "me")
    hopeless = {"epochs": 9, "lr": 1e-9, "min_lr": 0}
    outcome = train(
        network(), tensor_data(), spec(**hopeless), seed=0,
        hooks=Hooks(accuracy_to_beat=0.95, checkpoint=checkpoint),
    )  # fmt: skip
    assert (outcome.epochs_run, outcome.stopped_early) == (3, True)
    outcome = train(
        network(), tensor_data(), spec(**hopeless), seed=0, hooks=Hooks(accuracy_to_beat=0.95, further_epochs=6)
    )
    assert outcome.epochs_run == 5, "a third of all epochs, those of fine-tuning included"
    for unstoppable in (spec(**hopeless, early_stop=False), spec(**hopeless)):
        to_beat = 0.95 if not unstoppable.early_stop else None
        outcome = train(network(), tensor_data(), unstoppable, seed=0, hooks=Hooks(accuracy_to_beat=to_beat))
        assert (outcome.epochs_run, outcome.stopped_early) == (9, False)


def test_a_small_vit_learns_digits():
    data = TensorData(load_dataset(DatasetSpec(kind="digits"), image_size=8, seed=0), CPU)
    seed_everything(0, 0)
    model = build_dense(architecture(num_classes=10, patch_size=4, width=64, heads=4, depth=2))
    recipe = TrainSpec(epochs=8, batch_size=32, lr=3e-3, autocast="fp32")
    outcome = train(model, data, recipe, seed=0)
    assert outcome.accuracy > 0.85
    assert evaluate(model, data, data.source.test, batch_size=256).accuracy > 0.85


def test_seeds_differ_between_epochs_and_reach_both_generators():
    drawn = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (0, 0)):
        seed_everything(seed, epoch)
        drawn.append((torch.rand(1).item(), np.random.rand()))  # noqa: NPY002 - the generator timm reads
    assert drawn[0] == drawn[3]
    assert len(set(drawn)) == 3
    assert len({t for t, _ in drawn}) == len({n for _, n in drawn}) == 3
