import io

import numpy as np
import pytest
from PIL import Image

from vitsearch.errors import InputError
from vitsearch.export import Preprocess
from vitsearch.export.images import pixels_of
from vitsearch.train.data import read_image_file


def preprocess(size=8, in_chans=3) -> Preprocess:
    return Preprocess(
        image_size=size, in_chans=in_chans, mean=(0.5,) * in_chans, std=(0.2,) * in_chans, class_names=("a", "b")
    )


def picture(mode: str) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (13, 19, 4), dtype=np.uint8)
    if mode.startswith("I"):
        return Image.fromarray(values[..., 0].astype(np.uint16) * 257).convert(mode)
    if mode == "F":
        return Image.fromarray(values[..., 0].astype(np.float32) / 255)
    colour = Image.fromarray(values)
    return colour if mode == "RGBA" else colour.convert("RGB").convert(mode)


@pytest.mark.parametrize("in_chans", [1, 3])
@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("1", "png"), ("L", "png"), ("LA", "png"), ("P", "png"), ("RGB", "png"), ("RGBA", "png"), ("I;16", "png"),
     ("I", "tiff"), ("F", "tiff"), ("CMYK", "tiff"), ("YCbCr", "tiff"), ("LAB", "tiff")],
)  # fmt: skip
def test_a_pillow_image_gives_the_pixels_of_its_file(mode, suffix, in_chans, tmp_path):
    image = picture(mode)
    image.save(tmp_path / f"x.{suffix}")
    rule = preprocess(in_chans=in_chans)
    from_file = read_image_file(tmp_path / f"x.{suffix}", image_size=8, in_chans=in_chans)
    np.testing.assert_array_equal(pixels_of(image, rule), from_file[None])
    np.testing.assert_array_equal(pixels_of(tmp_path / f"x.{suffix}", rule), from_file[None])


@pytest.mark.parametrize("mode", ["HSV", "RGBX", "RGBa", "PA"])
def test_rarer_modes_become_colours_first(mode):
    image = picture("RGB").convert("RGBA").convert(mode) if mode in {"RGBa", "PA"} else picture(mode)
    expected = pixels_of(image.convert("RGBA").convert("RGB"), preprocess())
    assert np.abs(pixels_of(image, preprocess()).astype(int) - expected).max() <= 1


def test_rotation_is_obeyed():
    upright = picture("RGB")
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6  # to be shown turned clockwise
    np.testing.assert_array_equal(pixels_of(turned, preprocess()), pixels_of(upright, preprocess()))


def test_arrays_of_every_shape():
    images_NHWC = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    rule = preprocess()
    np.testing.assert_array_equal(pixels_of(images_NHWC, rule), images_NHWC)
    np.testing.assert_array_equal(pixels_of(images_NHWC[0], rule), images_NHWC[:1])
    np.testing.assert_array_equal(pixels_of(list(images_NHWC), rule), images_NHWC)
    np.testing.assert_array_equal(pixels_of([images_NHWC[:2], images_NHWC[2]], rule), images_NHWC)
    grey = images_NHWC[0, ..., 0]
    np.testing.assert_array_equal(pixels_of(grey, rule)[0, ..., 2], grey)
    assert pixels_of(images_NHWC, preprocess(size=4, in_chans=1)).shape == (3, 4, 4, 1)
    assert pixels_of(np.zeros((0, 8, 8, 3), np.uint8), rule).shape == (0, 8, 8, 3)


@pytest.mark.parametrize(
    "array",
    [np.zeros((8, 8, 2), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros(8, np.uint8),
     np.zeros((1, 0, 8, 3), np.uint8), np.zeros((1, 1, 8, 8, 3), np.uint8)],
)  # fmt: skip
def test_arrays_of_no_image_shape_are_refused(array):
    with pytest.raises(InputError, match="pixels must have the shape"):
        pixels_of(array, preprocess())


def test_floats_are_refused_with_the_remedy():
    with pytest.raises(InputError, match=r"pixels must be uint8, but got 'float64'; scale them"):
        pixels_of(np.zeros((8, 8, 3)), preprocess())


@pytest.mark.parametrize("thing", [7, None, {"a": 1}])
def test_things_that_are_no_images_are_refused(thing):
    with pytest.raises(InputError, match="must be a path, a Pillow image"):
        pixels_of(thing, preprocess())


def test_missing_and_broken_files_are_named(tmp_path):
    (tmp_path / "x.png").write_bytes(b"no image")
    for name in ("x.png", "nowhere.png"):
        with pytest.raises(InputError, match=name):
            pixels_of(tmp_path / name, preprocess())


def test_a_truncated_pillow_image_is_refused():
    content = io.BytesIO()
    picture("RGB").save(content, "PNG")
    with Image.open(io.BytesIO(content.getvalue()[:200])) as image, pytest.raises(InputError, match="decoded"):
        pixels_of(image, preprocess())
