from __future__ import annotations

import numpy as np
import pytest

from vitsearch.train.data import ImageData, arrays
from vitsearch.train.data.image_data import STD_FLOOR, channel_statistics, fingerprint

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 1] * 4)
SPLITS = (np.arange(6), np.arange(6, 9), np.arange(9, 12))
NAMES = ("a", "b")


def test_properties() -> None:
    data = ImageData(
        images_NHWC=IMAGES,
        labels_N=LABELS,
        train=SPLITS[0],
        val=SPLITS[1],
        test=SPLITS[2],
        class_names=NAMES,
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
        fingerprint="0" * 16,
        skipped=(),
    )
    assert (data.num_classes, data.in_chans, data.image_size) == (2, 3, 4)
    assert data.chance_accuracy == pytest.approx(2 / 3)


@pytest.mark.parametrize("chunk_values", [1, 2**24])
def test_statistics_are_those_of_the_given_images(chunk_values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "CHUNK_VALUES", chunk_values)
    mean, std = channel_statistics(IMAGES, SPLITS[0])
    scaled = IMAGES[:6] / 255
    assert mean == pytest.approx(scaled.mean(axis=(0, 1, 2)))
    assert std == pytest.approx(scaled.std(axis=(0, 1, 2)))
    assert all(type(value) is float for value in (*mean, *std))


def test_a_constant_channel_keeps_a_usable_deviation() -> None:
    mean, std = channel_statistics(np.full((3, 2, 2, 1), 51, np.uint8), np.arange(3))
    assert mean == pytest.approx((0.2,))
    assert std == (STD_FLOOR,)


def test_fingerprint_sees_every_part() -> None:
    base = fingerprint(IMAGES, LABELS, SPLITS, NAMES)
    assert len(base) == 16
    assert int(base, 16) >= 0
    changed = IMAGES.copy()
    changed[3, 2, 1, 0] ^= 1
    others = [
        fingerprint(changed, LABELS, SPLITS, NAMES),
        fingerprint(IMAGES, LABELS[::-1], SPLITS, NAMES),
        fingerprint(IMAGES, LABELS, (np.arange(7), np.arange(7, 9), SPLITS[2]), NAMES),
        fingerprint(IMAGES, LABELS, SPLITS, ("a", "c")),
        fingerprint(IMAGES.reshape(12, 2, 8, 3), LABELS, SPLITS, NAMES),
    ]
    assert len({base, *others}) == 6
    assert fingerprint(np.asfortranarray(IMAGES), LABELS.astype(np.int32), SPLITS, NAMES) == base
