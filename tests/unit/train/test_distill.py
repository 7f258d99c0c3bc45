from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.unit.train.factory import CLASSES, network, spec, tensor_data
from vitsearch.train.batches import Batch, TrainingBatches
from vitsearch.train.distill import CachedAnswers, LiveAnswers, TeacherAnswers, distillation_loss, remember
from vitsearch.train.distill import answers as module
from vitsearch.train.loop import train
from vitsearch.train.losses import Outputs

AUGMENTED = {"mixup": 0.4, "randaugment_ops": 1, "erasing": 0.5, "crop_padding_px": 1}


def live(teacher: nn.Module, data: object = None) -> LiveAnswers:
    data = data or tensor_data()
    return LiveAnswers(
        teacher, image_size=8, in_chans=1, mean=data.source.mean, std=data.source.std,
        student_mean=data.mean, student_std=data.std,
    )  # fmt: skip


def no_further_epochs() -> TeacherAnswers:
    raise AssertionError("was asked live")


@pytest.mark.parametrize("changes", [{}, AUGMENTED], ids=["plain", "augmented"])
def test_cached_answers_are_those_of_the_teacher_to_the_very_batches(changes: dict[str, float]) -> None:
    data, recipe = tensor_data(), spec(**changes)
    teacher = live(network(5))
    batches = TrainingBatches(data, recipe)
    kept = remember(teacher, batches, seed=7, epochs=range(2), num_classes=CLASSES, top_k=CLASSES)
    cached = CachedAnswers(kept, no_further_epochs)
    for epoch in range(2):
        for batch in TrainingBatches(data, recipe).epoch(epoch, 7):
            torch.testing.assert_close(cached(batch), teacher(batch), atol=2e-3, rtol=2e-3)
    other = next(TrainingBatches(data, recipe).epoch(0, 8))
    assert not torch.allclose(cached(other), teacher(other), atol=2e-3), "another seed, other batches"


def test_what_is_not_remembered_is_spread_evenly() -> None:
    kept = module.RememberedAnswers(
        classes_ENT=np.array([[[2, 0]]], np.uint16),
        log_probs_ENT=np.log([[[0.5, 0.3]]]).astype(np.float16),
        num_classes=4,
    )
    batch = Batch(images_BCHW=torch.zeros(1, 1, 8, 8), targets=torch.zeros(1), epoch=0, step=0, start=0)
    found = CachedAnswers(kept, no_further_epochs)(batch).exp()
    torch.testing.assert_close(found, torch.tensor([[0.3, 0.1, 0.5, 0.1]]), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found.sum(), torch.tensor(1.0), atol=1e-3, rtol=0)


def test_epochs_beyond_the_cache_are_asked_live_and_the_teacher_loaded_once() -> None:
    data, recipe = tensor_data(), spec()
    loads: list[int] = []
    teacher = live(network(5))

    def load() -> TeacherAnswers:
        loads.append(1)
        return teacher

    kept = remember(
        teacher, TrainingBatches(data, recipe), seed=0, epochs=range(1), num_classes=CLASSES, top_k=CLASSES
    )
    cached = CachedAnswers(kept, load)
    for epoch in (0, 1, 2):
        for batch in TrainingBatches(data, recipe).epoch(epoch, 0):
            torch.testing.assert_close(cached(batch), teacher(batch), atol=2e-3, rtol=2e-3)
    assert loads == [1]


def test_two_trials_see_the_same_batches_and_differ_otherwise() -> None:
    seen: dict[int, list[Tensor]] = {1: [], 2: []}
    weights = []
    for seed, images in seen.items():

        def keep(outputs: Outputs, batch: Batch, images: list[Tensor] = images) -> Tensor:
            images.append(batch.images_BCHW.clone())
            return outputs.logits_BK.square().mean()

        model = network(seed, dropout=0.2)
        train(model, tensor_data(), spec(**AUGMENTED, dropout=0.2), seed=seed, data_seed=9, loss_terms=(keep,))
        weights.append(model.blocks[0].mlp.fc1.weight)
    assert all(torch.equal(a, b) for a, b in zip(seen[1], seen[2], strict=True))
    assert not torch.equal(*weights)


def test_a_teacher_of_another_size_and_of_colour_sees_the_same_picture() -> None:
    class Remembers(nn.Module):
        def forward(self, images_BCHW: Tensor) -> Tensor:
            self.images = images_BCHW
            return torch.zeros(len(images_BCHW), CLASSES)

    data, teacher = tensor_data(), Remembers()
    answers = LiveAnswers(
        teacher, image_size=16, in_chans=3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4),
        student_mean=data.mean, student_std=data.std,
    )  # fmt: skip
    indices = torch.arange(4)
    answers.logits(data.normalized(indices))
    assert teacher.images.shape == (4, 3, 16, 16)
    pixels = teacher.images * torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1) + torch.tensor([0.5, 0.4, 0.3]).view(
        3, 1, 1
    )
    expected = torch.nn.functional.interpolate(
        data.raw(indices) / 255, size=(16, 16), mode="bilinear", antialias=True
    )
    torch.testing.assert_close(pixels, expected.expand(-1, 3, -1, -1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", ["soft", pytest.param("hard", marks=pytest.mark.slow), "deit"])
def test_a_student_comes_to_agree_with_its_teacher(method: str) -> None:
    """On labels that say nothing: all a student can learn is what its teacher says."""
    data = tensor_data(120)
    data.labels_N = torch.zeros_like(data.labels_N)
    torch.manual_seed(3)
    teacher = live(nn.Sequential(nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, CLASSES)), data)
    recipe = spec(
        epochs=45, lr=5e-3, early_stop=False,
        distill={"method": method, "teacher": {"timm": "any"}, "alpha": 1.0},
    )  # fmt: skip
    student = network(1, distilled=method == "deit")
    indices = torch.from_numpy(data.source.train)
    images = data.normalized(indices)
    wanted = teacher.logits(images).argmax(dim=-1)

    def agreement() -> float:
        with torch.inference_mode():
            *_, last = student.eval().forward_heads(images)
        return float((last.argmax(dim=-1) == wanted).float().mean())

    assert agreement() < 0.6
    train(student, data, recipe, seed=0, loss_terms=(distillation_loss(recipe.distill, 0.0, teacher),))
    assert agreement() > 0.8
