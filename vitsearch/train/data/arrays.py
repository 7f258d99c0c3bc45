"""Operations on whole arrays of images, in chunks that bound the memory.

Shape suffixes: N images, H height, W width, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

ImageArray = npt.NDArray[np.uint8]
Channels = Literal[1, 3]

CHUNK_VALUES = 2**24


def chunks(num_images: int, values_per_image: int) -> Iterator[slice]:
    """Slices that cover ``num_images`` with about ``CHUNK_VALUES`` values each."""
    step = max(1, CHUNK_VALUES // max(1, values_per_image))
    for start in range(0, num_images, step):
        yield slice(start, min(start + step, num_images))


def squared(images_NHWC: ImageArray, image_size: int) -> ImageArray:
    """Resize the short side to ``image_size`` (bicubic, antialiased) and crop the centre.

    The arithmetic is Pillow's, so an image gives the same pixels from an array and from a file, but for an odd
    border, which a file crops at half a pixel.

    Returns:
        Shape (N, image_size, image_size, C); the argument itself when nothing changes.
    """
    count, height, width, channels = images_NHWC.shape
    if height == width == image_size:
        return images_NHWC
    import torch

    scale = image_size / min(height, width)
    size = (max(image_size, round(height * scale)), max(image_size, round(width * scale)))
    top, left = (size[0] - image_size) // 2, (size[1] - image_size) // 2
    out_NHWC = np.empty((count, image_size, image_size, channels), dtype=np.uint8)
    for part in chunks(count, max(height * width, size[0] * size[1]) * channels):
        x_NCHW = torch.from_numpy(images_NHWC[part].copy()).permute(0, 3, 1, 2)
        y_NCHW = torch.nn.functional.interpolate(x_NCHW, size=size, mode="bicubic", antialias=True)
        cut_NCHW = y_NCHW[:, :, top : top + image_size, left : left + image_size]
        out_NHWC[part] = cut_NCHW.permute(0, 2, 3, 1).numpy()
    return out_NHWC


def with_channels(images_NHWC: ImageArray, in_chans: Channels) -> ImageArray:
    """Repeat a grey channel three times, or reduce colour to luminance (ITU-R BT.601, as Pillow does).

    Returns:
        Shape (N, H, W, in_chans); the argument itself when nothing changes.
    """
    if images_NHWC.shape[3] == in_chans:
        return images_NHWC
    if in_chans == 3:
        return np.repeat(images_NHWC, 3, axis=3)
    grey_NHWC = np.empty((*images_NHWC.shape[:3], 1), dtype=np.uint8)
    weights_C = np.array([19595, 38470, 7471], dtype=np.uint32)  # 0.299, 0.587, 0.114 of 2^16
    for part in chunks(len(images_NHWC), images_NHWC[:1].size):
        grey_NHWC[part, ..., 0] = (images_NHWC[part] @ weights_C + 2**15) >> 16
    return grey_NHWC
