"""A network that teaches itself across images of one class, against the formulas in plain numpy."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.train.factory import CPU, network, spec, tensor_data
from vitsearch.config import DatasetSpec, DistillSpec
from vitsearch.messages import EpochReport
from vitsearch.models import VisionTransformer
from vitsearch.train.batches import Batch
from vitsearch.train.checkpoint import EpochCheckpoint
from vitsearch.train.data import load_dataset
from vitsearch.train.distill import masked_losses
from vitsearch.train.distill.masked import SelfTeacher, Views, partners, random_masks, smkd
from vitsearch.train.loop import Hooks, train
from vitsearch.train.losses import Outputs, classification_loss
from vitsearch.train.tensors import TensorData

B, P, D, K = 5, 7, 4, 6
SMKD = DistillSpec(inner="smkd", inner_weight=0.5)


def some(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def views(seed: int) -> Views:
    return Views(some(B, K, seed=seed), some(B, P, K, seed=seed + 1), some(B, P, D, seed=seed + 2))


def cross_entropy(teacher: np.ndarray, student: np.ndarray) -> float:
    """-sum_k P_t,k log P_s,k at the temperatures 0.04 and 0.1."""
    t, s = np.exp(teacher / 0.04 - (teacher / 0.04).max()), np.exp(student / 0.1 - (student / 0.1).max())
    return -sum(t[k] / t.sum() * math.log(s[k] / s.sum()) for k in range(len(t)))


def test_the_loss() -> None:
    teacher, student = views(0), views(10)
    partner = [2, 1, 4, 0, 0]
    of_images, of_patches = [], []
    for j in range(B):
        i = partner[j]
        of_images.append(cross_entropy(teacher.cls_BK[i].numpy(), student.cls_BK[j].numpy()))
        for p in range(P):
            x = teacher.features_BPD[i, p].numpy()
            ys = student.features_BPD[j].numpy()
            alike = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for y in ys]
            q = max(range(P), key=alike.__getitem__)
            of_patches.append(cross_entropy(teacher.patches_BPK[i, p].numpy(), student.patches_BPK[j, q].numpy()))
    found = smkd(teacher, student, torch.tensor(partner))
    assert float(found) == pytest.approx(np.mean(of_images) + np.mean(of_patches), rel=1e-9)
    without = [Views(v.cls_BK, v.patches_BPK[:, :0], v.features_BPD[:, :0]) for v in (teacher, student)]
    assert float(smkd(*without, torch.tensor(partner))) == pytest.approx(np.mean(of_images), rel=1e-9)


def test_partners_are_of_one_class_and_drawn_evenly() -> None:
    classes = torch.tensor([3, 1, 3, 2, 3, 1])
    torch.manual_seed(0)
    drawn = torch.stack([partners(classes) for _ in range(300)])
    assert (classes[drawn] == classes).all()
    assert (drawn[:, 3] == 3).all(), "alone in its class"
    assert (drawn[:, [0, 1, 2, 4, 5]] != torch.tensor([0, 1, 2, 4, 5])).all()
    assert (drawn[:, 0] == 2).float().mean() == pytest.approx(0.5, abs=0.1)


def test_masks_hide_a_tenth_to_a_half() -> None:
    torch.manual_seed(0)
    hidden = random_masks(400, 100, torch.device("cpu")).float()
    share = hidden.mean(dim=1)
    assert share.min() >= 0.1
    assert share.max() <= 0.5
    assert share.std() > 0.08
    assert hidden.mean(dim=0).std() < 0.05, "every place alike"


def batch_of(count: int = 8, **changes: Any) -> Batch:
    images = tensor_data().normalized(torch.arange(count))
    return Batch(**{"images_BCHW": images, "targets": torch.arange(count) % 2, "epoch": 0, "step": 0, "start": 0,
                    **changes})  # fmt: skip


@torch.no_grad()
def test_the_teacher_is_the_moving_average_and_its_answers_are_centred() -> None:
    student = network(3).eval()
    own = SelfTeacher(student)
    started = {name: value.clone() for name, value in own.teacher.state_dict().items()}
    for parameter in student.parameters():
        parameter.add_(1.0)
    own.follow(student, 0.0)
    for name, value in own.teacher.state_dict().items():
        torch.testing.assert_close(value, 0.996 * started[name] + 0.004 * (started[name] + 1))
    before = {name: value.clone() for name, value in own.teacher.state_dict().items()}
    own.follow(student, 1.0)  # momentum 1
    assert all(torch.equal(value, before[name]) for name, value in own.teacher.state_dict().items())

    images = batch_of().images_BCHW
    plain, again = own.taught(images), own.taught(images)
    torch.testing.assert_close(own.mean_cls_K, 0.19 * plain.cls_BK.mean(dim=0))  # 1 - 0.9^2, from zero
    torch.testing.assert_close(again.cls_BK, plain.cls_BK - 0.1 * plain.cls_BK.mean(dim=0))
    torch.testing.assert_close(again.patches_BPK, plain.patches_BPK - 0.1 * plain.patches_BPK.mean(dim=(0, 1)))


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"distilled": True}, {"pool": "avg"}, {"class_token": False, "pool": "avg"},
        {"class_attention_blocks": 1}, {"patch_embedding": "conv_stem"}, {"patch_embedding": "spt"},
    ],
    ids=str,
)  # fmt: skip
def test_every_architecture_learns_by_it_and_keeps_nothing_of_it(changes: dict[str, Any]) -> None:
    student = network(3, depth=3, **changes).train()
    names = [name for name, _ in student.named_parameters()]
    with masked_losses(SMKD, student, 4) as (term,):
        heads_BK = student.forward_heads(batch_of().images_BCHW)
        loss = term(Outputs.of(heads_BK), batch_of())
        loss.backward()
        own = student.distill_self
        assert own.mask_token.grad.abs().sum() > 0
        assert own.head.prototypes_KX.grad.abs().sum() > 0
        assert student.patch_embed.proj.weight.grad.abs().sum() > 0
        assert all(one.grad is None for one in own.teacher.parameters())
        assert not own.teacher.training
    assert [name for name, _ in student.named_parameters()] == names
    assert not student.patch_embed._forward_hooks
    assert not student.blocks[0]._forward_hooks


def test_masked_patches_do_not_reach_the_student() -> None:
    student = network(3).eval()
    own, images = SelfTeacher(student), batch_of().images_BCHW
    nn.init.normal_(own.mask_token)
    everything = torch.ones(len(images), student.architecture.num_patches, dtype=torch.bool)
    with torch.no_grad():
        blind = own.learned(student, images, everything)
        torch.testing.assert_close(blind.cls_BK[0], blind.cls_BK[1])
        seeing = own.learned(student, images, ~everything)
        torch.testing.assert_close(seeing.features_BPD, student.forward_features(images)[:, 1:])


def test_it_counts_until_a_share_of_the_epochs_and_under_mixup() -> None:
    student = network(3)
    half = DistillSpec(inner="smkd", until=0.5)
    mixed = batch_of(targets=torch.tensor([[0.7, 0.3], [0.4, 0.6]] * 4))
    with masked_losses(half, student, 5) as (term,), torch.no_grad():
        outputs = Outputs(cls_BK=torch.zeros(8, 2))
        assert float(term(outputs, mixed)) > 0
        found = [float(term(outputs, batch_of(epoch=epoch))) > 0 for epoch in range(5)]
    assert found == [True, True, True, False, False]
    with masked_losses(DistillSpec(), student, 5) as terms:
        assert terms == ()


def test_a_resumed_run_ends_as_one_never_interrupted(tmp_path: Path) -> None:
    """The teacher, its centres and the heads are in the checkpoint."""
    data, recipe = tensor_data(), spec(epochs=3, early_stop=False, distill={"inner": "smkd"})

    class KilledError(Exception):
        pass

    def run(checkpoint: EpochCheckpoint | None, dies_after: int = 99) -> VisionTransformer:
        student = network(5)

        def on_epoch(report: EpochReport) -> None:
            if report.epoch == dies_after:
                raise KilledError

        hooks = Hooks(checkpoint=checkpoint, on_epoch=on_epoch)
        torch.manual_seed(9)  # of the heads
        with masked_losses(recipe.distill, student, 3) as own:
            train(student, data, recipe, seed=1, hooks=hooks, loss_terms=(classification_loss(0.0), *own))
        return student

    whole = run(None)
    checkpoint = EpochCheckpoint(tmp_path / "epoch.pt", key="any")
    with pytest.raises(KilledError):
        run(checkpoint, dies_after=2)
    resumed = run(checkpoint)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.slow
def test_alone_it_draws_images_of_a_class_together() -> None:
    """Without the labels' own loss: neighbours by what the network has computed are of one class more often."""
    source = load_dataset(DatasetSpec(kind="digits"), image_size=8, seed=0)
    data = TensorData(dataclasses.replace(source, train=source.train[:300]), CPU)
    recipe = spec(epochs=40, batch_size=50, lr=2e-3, early_stop=False,
                  distill={"method": "combined", "terms": {"smkd": 1.0}})  # fmt: skip
    student = network(1, num_classes=10, patch_size=2, depth=3, width=48, heads=4)

    @torch.no_grad()
    def neighbours_of_one_class() -> float:
        student.eval()
        known, asked = (data.normalized(torch.from_numpy(part)) for part in (data.source.train, source.val))
        known_ND, asked_MD = (
            nn.functional.normalize(student.forward_features(x)[:, 0], dim=-1) for x in (known, asked)
        )
        nearest_M = (asked_MD @ known_ND.T).argmax(dim=1).numpy()
        return float((source.labels_N[data.source.train][nearest_M] == source.labels_N[source.val]).mean())

    before = neighbours_of_one_class()
    with masked_losses(recipe.distill, student, recipe.epochs) as own:
        train(student, data, recipe, seed=1, loss_terms=own)
    assert neighbours_of_one_class() > before + 0.1
