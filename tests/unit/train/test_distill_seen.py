"""Which patches of which block are compared, and which teachers have none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from tests.unit.train.factory import network, tensor_data
from vitsearch.candidate import Candidate
from vitsearch.compress import build_reducers
from vitsearch.config import DistillSpec
from vitsearch.errors import InputError
from vitsearch.models import VisionTransformer, build_dense
from vitsearch.train.batches import Batch
from vitsearch.train.distill import LiveAnswers, check_inner, inner_losses
from vitsearch.train.distill.seen import Seen, patches_of, seen_by, watching
from vitsearch.train.losses import Outputs

SHAPE = {"image_size": 8, "in_chans": 1, "num_classes": 3, "patch_size": 2, "depth": 4, "width": 16, "heads": 2}


def live(teacher: nn.Module, size: int = 8, channels: int = 1) -> LiveAnswers:
    data = tensor_data()
    return LiveAnswers(
        teacher, image_size=size, in_chans=channels, mean=(0.5,) * channels, std=(0.2,) * channels,
        student_mean=data.mean, student_std=data.std,
    )  # fmt: skip


def recipe(inner: str = "tokens", **settings: Any) -> DistillSpec:
    return DistillSpec.model_validate({"inner": inner, "teacher": {"timm": "any"}, **settings})


def reducing(seed: int = 0, **tokens: Any) -> VisionTransformer:
    torch.manual_seed(seed)
    candidate = Candidate.model_validate({"architecture": SHAPE, "tokens": tokens})
    model = build_dense(candidate.architecture).eval()
    model.set_reducers(build_reducers(candidate))
    return model


def some_batch() -> Batch:
    images = tensor_data().normalized(torch.arange(5))
    return Batch(images_BCHW=images, targets=torch.arange(5) % 3, epoch=0, step=0, start=0)


def timm_network(name: str, **settings: Any) -> nn.Module:
    return timm.create_model(name, in_chans=1, num_classes=3, **settings).eval()


SWIN = {"img_size": 32, "window_size": 4, "embed_dim": 24, "depths": (1, 1), "num_heads": (2, 2)}
WHOLE: dict[str, tuple[Any, int, int, int]] = {  # network, image size, width of its features, side of its grid
    "convolutions": (lambda: timm_network("resnet10t"), 64, 512, 2),
    "channels last": (lambda: timm_network("swin_tiny_patch4_window7_224", **SWIN), 32, 48, 4),
    "tokens, no CLS": (lambda: timm_network("mixer_s32_224", img_size=64), 64, 512, 2),
    "a ViT of other blocks": (
        lambda: timm_network("beit_base_patch16_224", img_size=32, patch_size=8, depth=1, embed_dim=24,
                             num_heads=2),
        32, 24, 4,
    ),
    "plain, registers": (
        lambda: timm_network("vit_small_patch14_reg4_dinov2", img_size=8, patch_size=4, depth=2, embed_dim=24,
                             num_heads=2),
        8, 24, 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_the_grid_of_every_kind_of_teacher(name: str):
    """Four registers and CLS before a grid of 2 x 2 are nine tokens, and no grid of 3 x 3."""
    make, size, width, side = WHOLE[name]
    teacher = live(make(), size)
    check_inner(recipe(), teacher)
    seen = seen_by(teacher, torch.zeros(2, 1, 8, 8))
    features = seen.final if seen.final is not None else seen.blocks[0]
    found = patches_of(features, teacher.network)
    assert found is not None
    assert found.shape == (2, side * side, width)


def test_a_map_with_channels_last_keeps_its_places():
    swin = timm_network("swin_tiny_patch4_window7_224", **SWIN)
    features = torch.randn(2, 4, 4, 48, generator=torch.Generator().manual_seed(0))
    found = patches_of(features, swin)
    assert found is not None
    for place in range(16):
        assert torch.equal(found[:, place], features[:, place // 4, place % 4])


@pytest.mark.parametrize(
    ("make", "size", "inner", "rule"),
    [
        (lambda: timm_network("resnet10t"), 32, "tokens", "a square grid of patches, but .* the shape"),
        (lambda: timm_network("pit_ti_224"), 224, "manifold", r"the teacher's features have the shape \(1, 1, "),
        (WHOLE["channels last"][0], 32, "minivit", "queries, keys and values, but the teacher has"),
        (WHOLE["a ViT of other blocks"][0], 32, "minivit", "queries, keys and values, but the teacher has"),
        (lambda: reducing(reducer="tome", r=2, blocks=(1, 3)), 8, "tokens", "the teacher's leave in its first"),
        (lambda: reducing(reducer="tome", r=2, blocks=(1, 3)), 8, "minivit", "the teacher's leave in its first"),
    ],
    ids=["one place", "only CLS", "swin", "beit", "tome", "tome, minivit"],
)  # fmt: skip
def test_a_teacher_without_what_is_compared_is_refused(make: Any, size: int, inner: str, rule: str):
    with pytest.raises(InputError, match=rule) as caught:
        check_inner(recipe(inner), live(make(), size))
    assert (caught.value.field, caught.value.value) == ("train.distill.inner", inner)
    assert "as teacher" in caught.value.remedy
    with pytest.raises(InputError) as caught:
        check_inner(recipe("none", method="combined", terms={"labels": 1.0, inner: 1.0}), live(make(), size))
    assert caught.value.field == "train.distill.terms"


@pytest.mark.parametrize(
    ("tokens", "complete"),
    [
        ({"reducer": "none"}, 4),
        ({"reducer": "tome", "r": 2, "blocks": (3,)}, 2),
        ({"reducer": "tome", "r": 2, "blocks": (1,)}, 0),
        ({"reducer": "evo", "keep": 0.5, "blocks": (3, 4)}, 0),  # its routes run blocks in steps of their own
        ({"reducer": "threshold", "tau": 0.06, "blocks": (2,)}, 1),
    ],
    ids=lambda value: value["reducer"] if isinstance(value, dict) else "",
)
def test_blocks_that_keep_every_token(tokens: dict[str, Any], complete: int):
    """Of the latest pass alone, whichever blocks it ran."""
    model, seen = reducing(**tokens), Seen()
    with watching(model, seen):
        for _ in range(3):
            model(some_batch().images_BCHW)
            assert (seen.complete, len(seen.parts)) == (complete, 4)
    model(some_batch().images_BCHW)
    assert len(seen.parts) == 4, "nothing is kept outside the with block"


def test_places_without_a_token_mean_that_others_may_have_moved():
    """One image keeps all of its patches, so that the count stays, and another does not."""

    def reducer(x_BND: Tensor, attention: object, size_BN: Tensor | None) -> tuple[Tensor, Tensor]:
        size_BN = torch.ones(x_BND.shape[:2])
        size_BN[1, -1] = 0
        return x_BND, size_BN

    model, seen = reducing(reducer="none"), Seen()
    model.set_reducers({3: reducer})
    with watching(model, seen):
        model(some_batch().images_BCHW)
    assert seen.complete == 2


@pytest.mark.parametrize(("student_block", "teacher_block", "height"), [(None, 3, 2), (3, None, 2), (3, 2, 1)])
def test_whichever_loses_patches_first_decides_the_height(
    student_block: int | None, teacher_block: int | None, height: int
):
    """Student and teacher have four blocks: those that leave ``height`` blocks are compared."""

    def built(seed: int, block: int | None) -> VisionTransformer:
        return reducing(
            seed, **({"reducer": "tome", "r": 3, "blocks": (block,)} if block else {"reducer": "none"})
        )

    student, teacher = built(1, student_block), built(2, teacher_block)
    batch = some_batch()
    spec = recipe("none", method="combined", terms={"manifold": 1.0})
    with inner_losses(spec, student, live_as_student(teacher), 1) as (term,):
        outputs = Outputs(cls_BK=student(batch.images_BCHW))
        found = float(term(outputs, batch).detach())
    own = after(student, batch.images_BCHW, (student_block or 5) - 1)
    theirs = after(teacher, batch.images_BCHW, height)
    assert found == pytest.approx(manifold(own, theirs), rel=1e-4)


def live_as_student(teacher: nn.Module) -> LiveAnswers:
    data = tensor_data()
    return LiveAnswers(
        teacher, image_size=8, in_chans=1, mean=data.source.mean, std=data.source.std,
        student_mean=data.mean, student_std=data.std,
    )  # fmt: skip


def after(model: VisionTransformer, images_BCHW: Tensor, blocks: int) -> np.ndarray:
    """Patches after so many blocks, of a network that has lost none until then."""
    with torch.no_grad():
        x_BND = model.norm_pre(model.embed(images_BCHW))
        for block in model.blocks[:blocks]:
            x_BND = block(x_BND)[0]
    return x_BND[:, 1:].double().numpy()


def manifold(s: np.ndarray, t: np.ndarray) -> float:
    """All pairs of the batch are drawn: 5 images of 16 patches are fewer than 192."""
    s, t = (z / np.linalg.norm(z, axis=-1, keepdims=True) for z in (s, t))
    within = np.mean([(s[b] @ s[b].T - t[b] @ t[b].T) ** 2 for b in range(5)])
    across = np.mean([(s[:, i] @ s[:, i].T - t[:, i] @ t[:, i].T) ** 2 for i in range(16)])
    u, v = s.reshape(80, -1), t.reshape(80, -1)
    return float(within + across + np.mean((u @ u.T - v @ v.T) ** 2))


def test_several_summands_are_weighed_and_the_teacher_is_asked_once():
    student, teacher = network(1, depth=3), live_as_student(network(2, depth=3))
    batch, weights = some_batch(), {"tokens": 0.5, "manifold": 3.0, "minivit": 0.25}
    asked: list[int] = []
    teacher.network.register_forward_hook(lambda *_: asked.append(1))
    teacher.network.patch_embed.register_forward_hook(lambda *_: asked.append(1))

    def value(terms: dict[str, float]) -> float:
        torch.manual_seed(0)  # the projection's first weights
        with inner_losses(recipe("none", method="combined", terms=terms), student, teacher, 1) as (term,):
            outputs = Outputs(cls_BK=student(batch.images_BCHW))
            asked.clear()
            return float(term(outputs, batch).detach())

    single = {name: value({name: 1.0}) for name in weights}
    assert value(weights) == pytest.approx(sum(weights[name] * single[name] for name in weights), rel=1e-5)
    assert len(asked) == 1


def test_a_student_that_loses_patches_in_its_first_block_has_nothing_to_compare():
    student = reducing(1, reducer="tome", r=2, blocks=(1,))
    batch = some_batch()
    with inner_losses(recipe("manifold"), student, live_as_student(network(2)), 1) as (term,):
        assert float(term(Outputs(cls_BK=student(batch.images_BCHW)), batch)) == 0
