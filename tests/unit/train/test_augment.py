from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.unit.train.factory import spec
from vitsearch.train.augment import Augmenter, normalize, random_crop, random_erase

STRENGTHS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "flip": {"flip": 0.5},
    "crop": {"crop_padding_px": 2},
    "randaugment": {"randaugment_ops": 2, "randaugment_magnitude": 15},
    "erasing": {"erasing": 0.7},
    "three_augment": {"three_augment": True},
    "everything": {"flip": 0.5, "crop_padding_px": 2, "randaugment_ops": 3, "erasing": 0.5},
}


def batch(size: int = 6, channels: int = 3, side: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (size, channels, side, side), dtype=torch.uint8, generator=generator)


def augmented(strength: str, images: Tensor, seed: int = 0) -> Tensor:
    channels = images.shape[1]
    torch.manual_seed(seed)
    augment = Augmenter(spec(**STRENGTHS[strength]), torch.full((channels,), 0.4), torch.full((channels,), 0.2))
    return augment(images)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [1, 5, 8, 17])
@pytest.mark.parametrize("strength", STRENGTHS)
def test_shape_dtype_and_determinism(strength: str, size: int, channels: int):
    images = batch(size, channels)
    before = images.clone()
    found = augmented(strength, images)
    assert found.shape == images.shape
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert torch.equal(images, before), "the shared data set is never written"
    assert torch.equal(found, augmented(strength, images))


@pytest.mark.parametrize("strength", [s for s in STRENGTHS if s != "nothing"])
def test_another_seed_gives_other_images(strength: str):
    images = batch(17)
    assert not torch.equal(augmented(strength, images), augmented(strength, images, seed=1))
    assert not torch.equal(augmented(strength, images), augmented("nothing", images))


def test_normalisation():
    images = batch()
    mean, std = torch.tensor([0.1, 0.5, 0.9]), torch.tensor([0.2, 0.3, 0.4])
    expected = (images.double() / 255 - mean.double()[:, None, None]) / std.double()[:, None, None]
    torch.testing.assert_close(normalize(images, mean, std).double(), expected, rtol=1e-5, atol=1e-5)


def test_flip_mirrors_some_images():
    images = batch(40)
    torch.manual_seed(0)
    found = Augmenter(spec(flip=0.5), torch.zeros(3), torch.ones(3))(images)
    plain, mirrored = images / 255, images.flip(-1) / 255
    flips = [torch.allclose(f, m, atol=1e-6) for f, m in zip(found, mirrored, strict=True)]
    assert all(flip or torch.allclose(f, p, atol=1e-6) for flip, f, p in zip(flips, found, plain, strict=True))
    assert 8 < sum(flips) < 32


def test_crops_are_shifts_of_up_to_the_padding_in_every_direction():
    torch.manual_seed(0)
    images = batch(200, channels=1)
    found = random_crop(images, 2)
    assert found.dtype == torch.uint8
    padded = torch.nn.functional.pad(images.float(), (2, 2, 2, 2), mode="replicate").to(torch.uint8)
    shifts = set()
    for image, wide in zip(found, padded, strict=True):
        match = [(y, x) for y in range(5) for x in range(5) if torch.equal(wide[:, y : y + 8, x : x + 8], image)]
        assert match
        shifts.add(match[0])
    assert {y for y, _ in shifts} == {x for _, x in shifts} == set(range(5))
    assert len(shifts) > 15, "rows and columns move independently"


def test_erasing_overwrites_one_rectangle_of_some_images():
    torch.manual_seed(0)
    images = torch.zeros(400, 2, 48, 48)
    found = random_erase(images, 0.5)
    assert (images == 0).all()
    changed = (found != 0).any(dim=1)
    erased = changed.flatten(1).any(dim=1)
    assert 150 < erased.sum() < 250
    for mask in changed[erased]:
        rows, columns = mask.any(dim=1).nonzero().flatten(), mask.any(dim=0).nonzero().flatten()
        assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all(), "a full rectangle"
        assert mask.sum() == len(rows) * len(columns)
    share = changed[erased].float().mean(dim=(1, 2))
    assert 0.015 < share.min() < share.max() < 0.35, "2 % to 33 %, never cut off by the border"
    assert 0.15 < share.mean() < 0.2
    assert (found[changed.unsqueeze(1).expand_as(found)].std() - 1).abs() < 0.05, "noise, in every channel"
    assert torch.equal(random_erase(images, 0.0), images)


def test_randaugment_draws_for_groups_of_images():
    """Copies of one image come back in at most 8 versions, and in more than one."""
    images = batch(1).expand(32, -1, -1, -1)
    versions = {tuple(image.flatten().tolist()) for image in augmented("randaugment", images)}
    assert 1 < len(versions) <= 8


def test_three_augment_greys_solarises_or_blurs() -> None:
    """Before the jitter, which keeps grey grey: of many groups about a third has equal channels."""
    grey = 0
    for seed in range(60):
        torch.manual_seed(seed)
        augment = Augmenter(spec(three_augment=True), torch.zeros(3), torch.ones(3))
        found = augment(batch(1))[0]
        grey += bool((found.amax(dim=0) - found.amin(dim=0)).max() < 0.01)
    assert 10 <= grey <= 30
