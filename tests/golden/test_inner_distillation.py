"""What students learn from a teacher's own computation, against the formulas in plain numpy."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from tests.unit.train.factory import CPU, network, tensor_data
from vitsearch.candidate import Architecture, Candidate
from vitsearch.cli.teaching import check_networks
from vitsearch.config import DatasetSpec, DistillSpec, EvaluateSpec, NetworkSpec, SpaceSpec, TrainSpec
from vitsearch.errors import InputError
from vitsearch.messages import TrialRequest, TrialResult
from vitsearch.models import VisionTransformer, build_dense
from vitsearch.space import SearchSpace, resolve_preset
from vitsearch.train.batches import Batch
from vitsearch.train.data import load_dataset
from vitsearch.train.distill import LiveAnswers, distillation_loss, inner_losses
from vitsearch.train.distill.inner import manifold, minivit, tokens
from vitsearch.train.distill.seen import patches_of, resampled
from vitsearch.train.loop import train
from vitsearch.train.losses import Outputs, classification_loss
from vitsearch.train.tensors import TensorData
from vitsearch.trial import TrialContext, run_trial

TEACHER = NetworkSpec(timm="vit_tiny_patch16_224")
DIGITS = Architecture(image_size=8, in_chans=1, num_classes=10, patch_size=2, depth=2, width=32, heads=2)


def live(teacher: nn.Module, data: TensorData, size: int = 8) -> LiveAnswers:
    return LiveAnswers(
        teacher, image_size=size, in_chans=1, mean=data.source.mean, std=data.source.std,
        student_mean=data.mean, student_std=data.std,
    )  # fmt: skip


def some(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def test_tokens():
    student, teacher = some(3, 5, 7), some(3, 5, 7, seed=1)
    t = teacher.numpy()
    normal = (t - t.mean(-1, keepdims=True)) / np.sqrt(t.var(-1, keepdims=True) + 1e-5)
    expected = np.mean([
        (student.numpy()[b, i, c] - normal[b, i, c]) ** 2 for b in range(3) for i in range(5) for c in range(7)
    ])  # fmt: skip
    assert float(tokens({"tokens": student}, {"tokens": teacher})) == pytest.approx(expected, rel=1e-9)


def test_manifold():
    """Fewer patches than 192, so that the random ones are all of them."""
    student, teacher = some(3, 5, 4), some(3, 5, 7, seed=1)
    s, t = (x.numpy() / np.linalg.norm(x.numpy(), axis=-1, keepdims=True) for x in (student, teacher))

    def difference(pairs: list[tuple[tuple[int, int], tuple[int, int]]]) -> float:
        return float(np.mean([(s[a] @ s[b] - t[a] @ t[b]) ** 2 for a, b in pairs]))

    within = difference([((b, i), (b, j)) for b in range(3) for i in range(5) for j in range(5)])
    across = difference([((a, i), (b, i)) for a in range(3) for b in range(3) for i in range(5)])
    every = [(b, i) for b in range(3) for i in range(5)]
    around = difference([(p, q) for p in every for q in every])
    found = float(manifold({"own": student}, {"tokens": teacher}))
    assert found == pytest.approx(within + across + around, rel=1e-9)


def test_minivit():
    student = {name: some(2, 4, 6, seed=i) for i, name in enumerate("qkv")}
    teacher = {name: some(2, 4, 9, seed=10 + i) for i, name in enumerate("qkv")}

    def rows(parts: dict[str, torch.Tensor], one: str, other: str, b: int) -> np.ndarray:
        logits = parts[one].numpy()[b] @ parts[other].numpy()[b].T / math.sqrt(parts[one].shape[-1])
        e = np.exp(logits)
        return e / e.sum(axis=1, keepdims=True)

    total = []
    for one in "qkv":
        for other in "qkv":
            for b in range(2):
                p, q = rows(teacher, one, other, b), rows(student, one, other, b)
                total += [-(p[n] * np.log(q[n])).sum() for n in range(4)]
    assert float(minivit(student, teacher)) == pytest.approx(np.mean(total), rel=1e-9)


def test_the_grid_of_a_teacher_is_resampled_without_its_prefix():
    patches_BPT = patches_of(torch.arange(17.0).view(1, 17, 1), nn.Identity())
    assert patches_BPT is not None
    assert resampled(patches_BPT, 4).flatten().tolist() == list(range(1, 17))
    assert resampled(patches_BPT, 2).shape == (1, 4, 1)
    assert float(resampled(patches_BPT, 1).mean()) == pytest.approx(8.5)


@pytest.mark.parametrize("inner", ["tokens", "manifold", "minivit"])
def test_a_network_that_is_its_own_teacher_and_whatever_it_is_compared_with(inner: str):
    """The relations of a network to itself: no loss (an entropy under minivit), and every weight may learn."""
    data = tensor_data()
    student = network(3, depth=3)
    spec = DistillSpec(inner=inner, teacher=TEACHER, inner_weight=2.0)
    batch = Batch(
        images_BCHW=data.normalized(torch.arange(6)), targets=torch.arange(6) % 3, epoch=0, step=0, start=0
    )
    before = {name for name, _ in student.named_parameters()}
    with inner_losses(spec, student, live(network(3, depth=3), data), 4) as (term,):
        outputs = Outputs(cls_BK=student.forward_heads(batch.images_BCHW)[0])
        same = term(outputs, batch)
        added = {name for name, _ in student.named_parameters()} - before
        projection = {"distill_projection.weight", "distill_projection.bias"}
        assert added == (projection if inner == "tokens" else set())
        same.backward()
        if inner == "tokens":
            assert student.distill_projection.weight.grad.abs().sum() > 0
        assert student.patch_embed.proj.weight.grad is not None
    assert {name for name, _ in student.named_parameters()} == before
    with inner_losses(spec, student, live(network(4, depth=3), data), 4) as (term,):
        student.forward_heads(batch.images_BCHW)
        other = term(outputs, batch)
    assert float(other.detach()) > float(same.detach()) + (0 if inner == "manifold" else 1e-6)
    if inner == "manifold":
        assert float(same.detach()) == pytest.approx(0, abs=1e-9)


def test_it_counts_until_a_share_of_the_epochs():
    data, student = tensor_data(), network(3)
    spec = DistillSpec(inner="manifold", teacher=TEACHER, until=0.5)
    with inner_losses(spec, student, live(network(4), data), 5) as (term,):
        found = []
        for epoch in range(5):
            images_BCHW = data.normalized(torch.arange(6))
            batch = Batch(images_BCHW=images_BCHW, targets=torch.arange(6) % 3, epoch=epoch, step=0, start=0)
            found.append(float(term(Outputs(cls_BK=student.forward_heads(images_BCHW)[0]), batch).detach()) > 0)
    assert found == [True, True, True, False, False]


@pytest.fixture(scope="module")
def digits() -> TensorData:
    return TensorData(load_dataset(DatasetSpec(kind="digits", max_images=300), image_size=8, seed=0), CPU)


def a_timm_vit() -> nn.Module:
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=2, in_chans=1, num_classes=10, depth=2, embed_dim=48,
        num_heads=3,
    ).eval()  # fmt: skip


def our_vit() -> VisionTransformer:
    torch.manual_seed(0)
    return build_dense(
        Architecture(image_size=8, in_chans=1, num_classes=10, patch_size=4, depth=2, width=24, heads=2)
    ).eval()


TEACHERS: dict[str, tuple[Any, int]] = {
    "ours": (our_vit, 8),
    "timm's, other patches": (a_timm_vit, 16),
    "resnet": (lambda: timm.create_model("resnet10t", in_chans=1, num_classes=10).eval(), 64),
    "efficientnet": (lambda: timm.create_model("efficientnet_lite0", in_chans=1, num_classes=10).eval(), 64),
}


@pytest.mark.parametrize(
    ("name", "inner"),
    [pytest.param(name, inner, marks=pytest.mark.slow if name in {"resnet", "efficientnet"} else ())
     for name in TEACHERS for inner in ("tokens", "manifold", "minivit")
     if inner != "minivit" or name in {"ours", "timm's, other patches"}],
)  # fmt: skip
def test_trials_with_every_kind_of_teacher(name: str, inner: str, digits: TensorData, tmp_path: Path):
    """Beside labels and the teacher's answers, in a pruned network that trains through 8-bit quantisers."""
    make, size = TEACHERS[name]
    teacher = live(make(), digits, size)
    c = Candidate.model_validate(
        {
            "architecture": {"image_size": 8, "in_chans": 1, "num_classes": 10, "patch_size": 2, "depth": 3,
                             "width": 32, "heads": 2, "mlp_ratio": 2.0},
            "tokens": {"reducer": "tome", "r": 3, "blocks": (3,)},
            "sparsity": {"method": "magnitude", "mlp_units": 40, "width": 24},
            "precision": {"weight_bits": 8, "activation_bits": 8, "training": "ste"},
        }
    )  # fmt: skip
    spec = DistillSpec(method="soft", alpha=0.1, inner=inner, inner_weight=0.5, teacher=TEACHER, until=0.7)
    recipe = TrainSpec(epochs=2, batch_size=64, autocast="fp32", distill=spec)
    request = TrialRequest(
        trial=0, candidate=c, train=recipe, evaluate=EvaluateSpec(batch_size=100), seed=0,
        data_fingerprint=digits.source.fingerprint, artifact_dir=str(tmp_path),
    )  # fmt: skip
    result = run_trial(request, TrialContext(data=digits, teachers=(teacher,), inner_teacher=teacher))
    assert isinstance(result, TrialResult), result
    assert math.isfinite(result.loss)
    lost = run_trial(request, TrialContext(data=digits, teachers=(teacher,)))
    assert not isinstance(lost, TrialResult)
    assert (lost.failure, lost.retryable) == ("no_teacher", True)


TERMS: dict[str, dict[str, float]] = {
    "GPUSQ-ViT's three": {"labels": 0.5, "soft": 0.5, "tokens": 0.2},
    "all": {"labels": 0.2, "soft": 0.4, "hard": 0.1, "tokens": 0.1, "manifold": 0.3, "minivit": 0.05},
    "no answers": {"labels": 0.8, "manifold": 0.2},
    "nothing but tokens": {"tokens": 1.0},
}


@pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS)
def test_trials_with_several_summands(terms: dict[str, float], digits: TensorData, tmp_path: Path):
    """In training, in fine-tuning of a narrower network with fewer tokens, and in training through quantisers."""
    teacher = live(our_vit(), digits)
    c = Candidate.model_validate(
        {
            "architecture": {"image_size": 8, "in_chans": 1, "num_classes": 10, "patch_size": 2, "depth": 3,
                             "width": 32, "heads": 2, "mlp_ratio": 2.0, "distilled": True},
            "tokens": {"reducer": "evit", "keep": 0.7, "blocks": (2,)},
            "sparsity": {"method": "taylor", "mlp_units": 40, "width": 24},
            "precision": {"weight_bits": 8, "activation_bits": 8, "training": "lsq"},
        }
    )  # fmt: skip
    spec = DistillSpec(method="combined", terms=terms, teacher=TEACHER)
    recipe = TrainSpec(epochs=2, finetune_epochs=1, qat_epochs=1, batch_size=64, autocast="fp32", distill=spec)
    request = TrialRequest(
        trial=0, candidate=c, train=recipe, evaluate=EvaluateSpec(batch_size=100), seed=0,
        data_fingerprint=digits.source.fingerprint, artifact_dir=str(tmp_path),
    )  # fmt: skip
    asked = teacher if spec.is_active else None
    computed = teacher if spec.inner_weights else None
    result = run_trial(request, TrialContext(data=digits, teachers=(asked,), inner_teacher=computed))
    assert isinstance(result, TrialResult), result
    assert math.isfinite(result.loss)


@pytest.mark.slow
def test_a_student_learns_from_weighted_summands_what_its_labels_do_not_say(tmp_path: Path):
    """All labels are one class; whoever knows better is a teacher that was trained on the true ones."""
    data = TensorData(load_dataset(DatasetSpec(kind="digits", max_images=900), image_size=8, seed=0), CPU)
    torch.manual_seed(0)
    knowing = build_dense(DIGITS, pos_embed_std=0.5)
    settings = {"epochs": 8, "batch_size": 32, "lr": 3e-3, "autocast": "fp32", "pos_embed_std": 0.5}
    train(knowing, data, TrainSpec.model_validate(settings), seed=1)
    truth, data.labels_N = data.labels_N, torch.zeros_like(data.labels_N)
    found = []
    for terms in ({"labels": 0.02, "soft": 1.0, "tokens": 0.3}, {"labels": 1.0, "soft": 1e-6}):
        distill = {"method": "combined", "terms": terms, "teacher": TEACHER, "temperature": 2.0}
        recipe = TrainSpec.model_validate({**settings, "distill": distill})
        torch.manual_seed(3)
        student, teacher = build_dense(DIGITS, pos_embed_std=0.5), live(knowing, data)
        with inner_losses(recipe.distill, student, teacher, recipe.epochs) as inner:
            summands = (distillation_loss(recipe.distill, 0.0, teacher), *inner)
            train(student, data, recipe, seed=0, loss_terms=summands)
        with torch.inference_mode():
            said = student(data.normalized(torch.from_numpy(data.source.val))).argmax(dim=-1)
        found.append(float((said == truth[torch.from_numpy(data.source.val)]).float().mean()))
    assert found[0] > 0.6
    assert found[1] < 0.2


@pytest.mark.parametrize("inner", ["tokens", "manifold", "minivit"])
def test_a_student_computes_what_its_teacher_does_on_images_it_has_not_seen(inner: str, digits: TensorData):
    """With the summand, at most half of what is left without it, above what the teacher has to itself."""
    settings = {"epochs": 4, "batch_size": 32, "lr": 3e-3, "autocast": "fp32", "early_stop": False}

    def built(seed: int) -> VisionTransformer:
        torch.manual_seed(seed)
        return build_dense(DIGITS, pos_embed_std=0.5)

    knowing = built(0)
    train(knowing, digits, TrainSpec.model_validate(settings), seed=0)
    teacher = live(knowing, digits)
    unseen = torch.from_numpy(digits.source.val)
    batch = Batch(
        images_BCHW=digits.normalized(unseen), targets=digits.labels_N[unseen], epoch=0, step=0, start=0
    )  # fmt: skip

    def left(student: VisionTransformer, weight: float, epochs: int) -> float:
        distill = {"method": "combined", "terms": {"labels": 1.0, inner: weight}, "teacher": TEACHER}
        recipe = TrainSpec.model_validate({**settings, "distill": distill})
        with inner_losses(recipe.distill, student, teacher, 4) as (term,):
            train(student, digits, recipe, seed=0, epochs=epochs, loss_terms=(classification_loss(0.0), term))
            with torch.no_grad():
                return float(term(Outputs(cls_BK=student(batch.images_BCHW)), batch)) / weight

    with inner_losses(DistillSpec(inner=inner, teacher=TEACHER), knowing, teacher, 1) as (term,), torch.no_grad():
        floor = float(term(Outputs(cls_BK=knowing(batch.images_BCHW)), batch)) if inner != "tokens" else 0.0
    assert left(built(1), 1.0, 4) - floor < 0.5 * (left(built(1), 1e-6, 4) - floor)


def test_a_student_learns_beside_a_teacher_that_knows_nothing(tmp_path: Path):
    """Labels teach in spite of it; a summand that took over would leave the student at chance."""
    data = TensorData(load_dataset(DatasetSpec(kind="digits", max_images=900), image_size=8, seed=0), CPU)
    teacher = live(our_vit(), data)
    architecture = {
        "image_size": 8,
        "in_chans": 1,
        "num_classes": 10,
        "patch_size": 2,
        "depth": 2,
        "width": 32,
        "heads": 2,
    }
    spec = DistillSpec(inner="tokens", inner_weight=0.1, teacher=TEACHER)
    recipe = TrainSpec(epochs=6, batch_size=32, lr=3e-3, autocast="fp32", pos_embed_std=0.5, distill=spec)
    request = TrialRequest(
        trial=0, candidate=Candidate.model_validate({"architecture": architecture}), train=recipe, seed=0,
        data_fingerprint=data.source.fingerprint, artifact_dir=str(tmp_path),
    )  # fmt: skip
    result = run_trial(request, TrialContext(data=data, inner_teacher=teacher))
    assert isinstance(result, TrialResult)
    assert result.accuracy > 3 * data.source.chance_accuracy


def test_what_a_teacher_must_have_is_checked_before_the_search(tmp_path: Path):
    with pytest.raises(ValueError, match="inner manifold needs a teacher"):
        DistillSpec(inner="manifold")
    network_10 = timm.create_model("resnet10t", in_chans=3, num_classes=10)
    torch.save(network_10.state_dict(), tmp_path / "resnet.pth")
    data = load_dataset(DatasetSpec(kind="digits", max_images=200), image_size=8, seed=0)
    space = SearchSpace(resolve_preset(SpaceSpec(preset="vit_micro_8")), in_chans=1, num_classes=10)
    teacher = {"timm": "resnet10t", "checkpoint": str(tmp_path / "resnet.pth")}

    def check(inner: str) -> None:
        train = TrainSpec.model_validate({"distill": {"inner": inner, "teacher": teacher}})
        check_networks(space, train, data)

    check("tokens")
    with pytest.raises(InputError, match="minivit compares queries, keys and values, but the teacher has none"):
        check("minivit")
    torch.save(timm.create_model("resnet10t", in_chans=3, num_classes=7).state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(InputError, match="must tell the data's 10 classes apart, but resnet10t tells 7"):
        check("tokens")
