"""One image file into pixels, whatever mode it is stored in."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vitsearch.errors import InputError
from vitsearch.train.data.arrays import Channels, ImageArray, with_channels

if TYPE_CHECKING:
    from PIL import Image

# Named, so that a file called x.png can never reach a plugin that starts another program (EPS).
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
WHITE_16_BIT = 65535


def read_image_file(path: Path, *, image_size: int | None = None, in_chans: Channels | None = None) -> ImageArray:
    """Read one image exactly as a data set of ``kind: imagefolder`` does.

    Transparency is laid on white, EXIF rotation is applied, 16-bit grey is scaled to 8 bits, and of an animation
    the first frame counts.

    Args:
        path: A file in one of ``FORMATS``.
        image_size: Resize the short side to this (bicubic, antialiased) and crop the centre; by default the image
            keeps its size.
        in_chans: 1 or 3; by default 1 for an image without colour and 3 for one with.

    Returns:
        Shape (H, W, C), uint8.

    Raises:
        InputError: The file is missing, broken, truncated, or so large that it may be a decompression bomb.
    """
    with quiet_pillow():
        pixels_HWC = decode(path, where=str(path), image_size=image_size)
    return pixels_HWC if in_chans is None else with_channels(pixels_HWC[None], in_chans)[0]


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's remarks about odd metadata and turn its warning about a possible bomb into an error.

    Warning filters belong to the process, not to a thread: enter this before threads start.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode(source: Path | io.BytesIO, *, where: str, image_size: int | None) -> ImageArray:
    """Pixels of shape (H, W, C), C = 1 where no pixel has a colour; call it inside ``quiet_pillow``.

    Raises:
        InputError: The image cannot be decoded; ``where`` names it.
    """
    from PIL import Image

    try:
        with Image.open(source, formats=FORMATS) as image:
            image.load()
            _turn_upright(image)
            flat = _grey_or_rgb(image)
        pixels = np.asarray(flat if image_size is None else _square(flat, image_size))
    except Exception as error:  # a malformed header makes Pillow raise almost anything
        reason = str(error) or type(error).__name__
        raise InputError(
            rule=f"must be an image that can be decoded ({reason})",
            where=where,
            remedy="replace or remove it",
        ) from error
    if pixels.ndim == 2:
        return pixels[..., None]
    has_colour = (pixels != pixels[..., :1]).any()
    return pixels if has_colour else np.ascontiguousarray(pixels[..., :1])


def _turn_upright(image: Image.Image) -> None:
    from PIL import ImageOps

    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # noqa: BLE001  # a damaged EXIF block hides the rotation, not the picture
        return


def _grey_or_rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_wide(image, WHITE_16_BIT)
    if image.mode == "F":
        return _from_wide(image, 1.0)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("L" if image.mode in {"1", "L"} else "RGB")


def _from_wide(image: Image.Image, white: float) -> Image.Image:
    """Scale to 8 bits; Pillow's own conversion clips at 255 instead."""
    from PIL import Image

    values_HW = np.asarray(image).astype(np.float64)
    if not (values_HW.min() >= 0 and values_HW.max() <= white):
        raise ValueError(f"pixels of mode {image.mode} must be in 0 to {white:g}")
    return Image.fromarray(np.rint(values_HW * (255 / white)).astype(np.uint8))


def _square(image: Image.Image, image_size: int) -> Image.Image:
    """Resize the short side and crop the centre in one step, so that a long thin image costs no memory."""
    from PIL import Image

    short = min(image.size)
    left, top = ((side - short) / 2 for side in image.size)
    box = (left, top, left + short, top + short)
    return image.resize((image_size, image_size), Image.Resampling.BICUBIC, box=box)
