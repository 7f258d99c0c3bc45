from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vitsearch.train.data import arrays
from vitsearch.train.data.arrays import chunks, squared, with_channels


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_chunks_cover_everything_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "CHUNK_VALUES", 10)
    assert [list(range(7))[part] for part in chunks(7, 4)] == [[0, 1], [2, 3], [4, 5], [6]]
    assert len(list(chunks(3, 100))) == 3
    assert list(chunks(0, 4)) == []


def test_the_right_size_is_not_copied() -> None:
    images = noise(2, 8, 8, 3)
    assert squared(images, 8) is images


@pytest.mark.parametrize("shape", [(3, 20, 20, 3), (3, 20, 20, 1), (2, 24, 40, 3), (2, 40, 24, 1), (2, 4, 8, 3)])
@pytest.mark.parametrize("chunk_values", [1, 2**24])
def test_squaring_equals_pillows(
    shape: tuple[int, ...], chunk_values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "CHUNK_VALUES", chunk_values)
    images = noise(*shape)
    images.setflags(write=False)  # as an array from an object store
    out = squared(images, 12)
    assert out.shape == (shape[0], 12, 12, shape[3])
    for source, result in zip(images, out, strict=True):
        image = Image.fromarray(source.squeeze())
        short = min(image.size)
        left, top = ((side - short) / 2 for side in image.size)
        box = (left, top, left + short, top + short)
        expected = np.asarray(image.resize((12, 12), Image.Resampling.BICUBIC, box=box))
        assert np.abs(expected.reshape(result.shape).astype(int) - result).max() <= 1


def test_luminance_equals_pillows() -> None:
    images = noise(2, 5, 7, 3)
    grey = with_channels(images, 1)
    assert grey.dtype == np.uint8
    for source, result in zip(images, grey, strict=True):
        assert np.array_equal(result[..., 0], np.asarray(Image.fromarray(source).convert("L")))
    assert with_channels(np.full((1, 1, 1, 3), 255, np.uint8), 1).item() == 255


def test_grey_is_repeated_and_equal_channels_are_kept() -> None:
    grey = noise(2, 3, 3, 1)
    assert with_channels(grey, 1) is grey
    colour = with_channels(grey, 3)
    assert colour.shape == (2, 3, 3, 3)
    assert (colour == grey).all()
