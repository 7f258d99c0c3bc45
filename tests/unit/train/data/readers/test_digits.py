from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from vitsearch.config.dataset import DatasetSpec
from vitsearch.train.data.readers.digits import read_digits


def test_sixteen_levels_fill_the_byte() -> None:
    raw = read_digits(DatasetSpec(kind="digits"), 8)
    original = load_digits().images
    images = raw.train.images_NHWC[..., 0]
    assert images.dtype == np.uint8
    assert (images[original == 16] == 255).all()
    assert (images[original == 8] == 128).all()
    assert (images[original == 0] == 0).all()
    assert raw.test is None
    assert raw.val is None
