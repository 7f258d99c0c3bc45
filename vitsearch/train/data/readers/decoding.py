"""Many image files into one array, in threads, with one rule for broken files."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from vitsearch.errors import InputError
from vitsearch.train.data.arrays import ImageArray, with_channels
from vitsearch.train.data.decode import decode, quiet_pillow
from vitsearch.train.data.image_data import IndexArray

# Each may hold one full-size photograph.
MAX_THREADS = 8


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """An image that is still to be decoded.

    Attributes:
        where: Its name in an error.
        short_name: Its name in ``skipped``, the same on every machine.
        open: Gives the file or its bytes.
    """

    where: str
    short_name: str
    open: Callable[[], Path | io.BytesIO]


def decode_all(
    sources: Sequence[Encoded], *, image_size: int, on_broken_image: Literal["skip", "error"]
) -> tuple[ImageArray, IndexArray, tuple[str, ...]]:
    """Decode and square images.

    Args:
        sources: In the order of the result.
        image_size: Side of the squares in pixels.
        on_broken_image: Leave out what cannot be decoded, or stop.

    Returns:
        Images of shape (N, image_size, image_size, C) with C = 1 if none has colour; the indices of ``sources``
        they come from; the names of those left out.

    Raises:
        InputError: With ``error``: the first image that cannot be decoded.
    """
    decode_one = partial(_decode, image_size=image_size, stop=on_broken_image == "error")
    with (
        quiet_pillow(),
        ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool,
    ):  # Pillow decodes outside the GIL
        decoded = list(pool.map(decode_one, sources))
    kept = np.array([i for i, image in enumerate(decoded) if image is not None], dtype=np.int64)
    skipped = tuple(source.short_name for source, image in zip(sources, decoded, strict=True) if image is None)
    images = [image for image in decoded if image is not None]
    in_chans: Literal[1, 3] = 3 if any(image.shape[2] == 3 for image in images) else 1
    images_NHWC = np.empty((len(images), image_size, image_size, in_chans), dtype=np.uint8)
    for i, image in enumerate(images):
        images_NHWC[i] = with_channels(image[None], in_chans)[0]
    return images_NHWC, kept, skipped


def _decode(source: Encoded, *, image_size: int, stop: bool) -> ImageArray | None:
    try:
        return decode(source.open(), where=source.where, image_size=image_size)
    except InputError as error:
        if not stop:
            return None
        error.remedy = "replace or remove it, or set dataset.on_broken_image: skip"
        raise
