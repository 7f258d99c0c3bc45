"""Whatever a person hands over as images, into the pixels that training would have read.

Shape suffixes: N images, H = W = image size, C channels.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from vitsearch.errors import InputError
from vitsearch.export.contents import Preprocess
from vitsearch.train.data import read_image_file
from vitsearch.train.data.arrays import ImageArray, squared, with_channels
from vitsearch.train.data.decode import decode, quiet_pillow

OneImage = str | Path | Image.Image | npt.NDArray[np.uint8]
Images = OneImage | Sequence[OneImage]

PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA"}
TIFF_MODES = {"I", "I;16", "I;16B", "F", "CMYK", "YCbCr", "LAB"}


def pixels_of(images: Images, preprocess: Preprocess) -> ImageArray:
    """Resize, crop and convert as the data set's reader does.

    Args:
        images: A file, a Pillow image, uint8 pixels of shape (H, W), (H, W, C) or (N, H, W, C), or a list of
            these.
        preprocess: Size and channels of the result.

    Returns:
        Shape (N, image_size, image_size, in_chans), uint8; an array of images counts as N.

    Raises:
        InputError: Something is no image.
    """
    size, in_chans = preprocess.image_size, preprocess.in_chans
    if isinstance(images, np.ndarray):
        return with_channels(squared(_checked(images), size), in_chans)
    if isinstance(images, Image.Image):
        with quiet_pillow():
            pixels_HWC = decode(_encoded(images), where="the image", image_size=size)
        return with_channels(pixels_HWC[None], in_chans)
    if isinstance(images, str | Path):
        if not Path(images).exists():
            raise InputError("the file does not exist", where=str(images), remedy="check the path")
        return read_image_file(Path(images), image_size=size, in_chans=in_chans)[None]
    if not isinstance(images, Sequence):
        raise InputError(
            "must be a path, a Pillow image, a uint8 array or a list of these", value=type(images).__name__
        )
    parts = [pixels_of(image, preprocess) for image in images]
    return np.concatenate(parts) if parts else np.empty((0, size, size, in_chans), dtype=np.uint8)


def _checked(array: npt.NDArray[np.uint8]) -> ImageArray:
    if array.dtype != np.uint8:
        raise InputError(
            "pixels must be uint8", value=str(array.dtype), remedy="scale them to 0..255 and convert them"
        )
    images_NHWC = {2: array[None, ..., None], 3: array[None], 4: array}.get(array.ndim)
    if images_NHWC is None or images_NHWC.shape[-1] not in {1, 3} or 0 in images_NHWC.shape[1:]:
        raise InputError(
            "pixels must have the shape (H, W), (H, W, C) or (N, H, W, C) with C = 1 or 3", value=array.shape
        )
    return images_NHWC


def _encoded(image: Image.Image) -> io.BytesIO:
    """The image as a lossless file in memory, so that there is one decoder only."""
    encoded = io.BytesIO()
    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode in PNG_MODES:
            upright.save(encoded, "PNG", compress_level=1)
        elif upright.mode in TIFF_MODES:
            upright.save(encoded, "TIFF")
        else:
            mode = "RGBA" if upright.has_transparency_data else "RGB"
            upright.convert(mode).save(encoded, "PNG", compress_level=1)
    except Exception as error:  # a lazily opened file decodes here, and Pillow then raises almost anything
        raise InputError(f"must be an image that can be decoded ({error})", where="the image") from error
    encoded.seek(0)
    return encoded
