"""A decoded, split data set: what training, calibration and evaluation read.

Shape suffixes: N images, H = W = image size, C channels.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vitsearch.train.data.arrays import ImageArray, chunks

IndexArray = npt.NDArray[np.int64]

# A channel that never varies would otherwise be divided by zero.
STD_FLOOR = 1e-3


@dataclass(frozen=True, kw_only=True, eq=False)  # arrays have no single truth value, so equality is identity
class ImageData:
    """All images of a data set and the three disjoint parts of it.

    Attributes:
        images_NHWC: uint8, C is 1 or 3.
        labels_N: Class of each image, 0 to ``num_classes - 1``.
        train: Ascending indices of the training images.
        val: Ascending indices of the validation images.
        test: Ascending indices of the test images.
        class_names: One name per class.
        mean: Mean of each channel over the training images, on a scale of 0 to 1.
        std: Standard deviation likewise, at least ``STD_FLOOR``.
        fingerprint: First 16 hex digits of a SHA-256 over images, labels, split and class names.
        skipped: Broken files that were left out.
    """

    images_NHWC: ImageArray
    labels_N: IndexArray
    train: IndexArray
    val: IndexArray
    test: IndexArray
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    skipped: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def in_chans(self) -> int:
        """1 for grey, 3 for colour."""
        return int(self.images_NHWC.shape[3])

    @property
    def image_size(self) -> int:
        """Side of the square images in pixels."""
        return int(self.images_NHWC.shape[1])

    @property
    def chance_accuracy(self) -> float:
        """Accuracy on the validation images of always naming their most frequent class."""
        return float(np.bincount(self.labels_N[self.val]).max() / len(self.val))


def channel_statistics(
    images_NHWC: ImageArray, indices: IndexArray
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel on a scale of 0 to 1.

    They come from integer histograms, so they do not depend on the order of the images or on threads.
    """
    num_channels = images_NHWC.shape[3]
    histogram_CV = np.zeros((num_channels, 256), dtype=np.int64)
    for part in chunks(len(indices), images_NHWC[0].size):
        images = images_NHWC[indices[part]]
        for channel in range(num_channels):
            histogram_CV[channel] += np.bincount(images[..., channel].ravel(), minlength=256)
    values_V = np.arange(256) / 255
    share_CV = histogram_CV / histogram_CV.sum(axis=1, keepdims=True)
    mean_C = share_CV @ values_V
    variance_C = (share_CV * (values_V - mean_C[:, None]) ** 2).sum(axis=1)
    std_C = np.maximum(np.sqrt(variance_C), STD_FLOOR)
    return tuple(mean_C.tolist()), tuple(std_C.tolist())


def fingerprint(
    images_NHWC: ImageArray,
    labels_N: IndexArray,
    splits: tuple[IndexArray, IndexArray, IndexArray],
    class_names: tuple[str, ...],
) -> str:
    """First 16 hex digits of a SHA-256 over everything an evaluation depends on."""
    digest = hashlib.sha256()
    header = [images_NHWC.shape, [len(split) for split in splits], class_names]
    digest.update(json.dumps(header).encode())
    digest.update(np.ascontiguousarray(images_NHWC).data)
    for array in (labels_N, *splits):
        digest.update(array.astype("<i8").tobytes())
    return digest.hexdigest()[:16]
