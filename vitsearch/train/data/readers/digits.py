"""scikit-learn's handwritten digits: 1,797 real grey images of 8 x 8 pixels inside a pip package."""

from __future__ import annotations

import numpy as np

from vitsearch.config.dataset import DatasetSpec
from vitsearch.train.data.readers.raw import RawImages, RawPart


def read_digits(_spec: DatasetSpec, _image_size: int, /) -> RawImages:
    """Read the digits; their values 0 to 16 become 0 to 255."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images_NHWC = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    return RawImages(
        train=RawPart(images_NHWC=images_NHWC, labels_N=bunch.target.astype(np.int64)),
        class_names=tuple(str(name) for name in bunch.target_names),
    )
