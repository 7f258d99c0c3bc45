"""Every storage mode a person may have, as a real file, against the pixels they would expect."""

from __future__ import annotations

import contextlib
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitsearch.errors import InputError
from vitsearch.train.data import read_image_file

RED, GREEN = (255, 0, 0), (0, 255, 0)


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_grey_png_stays_grey(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    pixels = read_image_file(saved(Image.fromarray(values), tmp_path / "a.png"))
    assert pixels.dtype == np.uint8
    assert pixels.shape == (3, 4, 1)
    assert np.array_equal(pixels[..., 0], values)


def test_rgb_png_keeps_its_colours(tmp_path: Path) -> None:
    pixels = read_image_file(saved(Image.new("RGB", (2, 3), (10, 20, 30)), tmp_path / "a.png"))
    assert pixels.shape == (3, 2, 3)
    assert (pixels == (10, 20, 30)).all()


def test_rgb_file_without_colour_is_grey(tmp_path: Path) -> None:
    pixels = read_image_file(saved(Image.new("RGB", (4, 4), (90, 90, 90)), tmp_path / "a.jpg", quality=100))
    assert pixels.shape == (4, 4, 1)
    assert (pixels == 90).all()


def test_rgba_is_composited_on_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (3, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (255, 0, 0, 0))
    image.putpixel((2, 0), (0, 0, 0, 128))
    pixels = read_image_file(saved(image, tmp_path / "a.png"))
    assert pixels[0].tolist() == [[255, 0, 0], [255, 255, 255], [127, 127, 127]]


def test_grey_with_alpha_is_composited_and_stays_grey(tmp_path: Path) -> None:
    image = Image.new("LA", (2, 1), (40, 255))
    image.putpixel((1, 0), (40, 0))
    pixels = read_image_file(saved(image, tmp_path / "a.png"))
    assert pixels.shape == (1, 2, 1)
    assert pixels[0, :, 0].tolist() == [40, 255]


def test_palette_and_its_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, 0, 0, 255])
    for x in range(3):
        image.putpixel((x, 0), x)
    opaque = read_image_file(saved(image, tmp_path / "opaque.png"))
    assert opaque[0].tolist() == [list(RED), list(GREEN), [0, 0, 255]]
    clear = read_image_file(saved(image, tmp_path / "clear.png", transparency=bytes([255, 0, 255])))
    assert clear[0].tolist() == [list(RED), [255, 255, 255], [0, 0, 255]]
    gif = read_image_file(saved(image, tmp_path / "clear.gif", transparency=1))
    assert gif[0].tolist() == [list(RED), [255, 255, 255], [0, 0, 255]]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_transparent_colour_key(tmp_path: Path, mode: str) -> None:
    colour = 7 if mode == "L" else (7, 7, 7)
    pixels = read_image_file(saved(Image.new(mode, (2, 2), colour), tmp_path / "a.png", transparency=colour))
    assert (pixels == 255).all()


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_one_bit_is_black_and_white(tmp_path: Path, suffix: str) -> None:
    image = Image.new("1", (2, 1), 0)
    image.putpixel((1, 0), 1)
    assert read_image_file(saved(image, tmp_path / f"a.{suffix}"))[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bit_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 257, 100 * 257, 65535]], dtype=np.uint16)
    pixels = read_image_file(saved(Image.fromarray(values), tmp_path / f"a.{suffix}"))
    assert pixels[0, :, 0].tolist() == [0, 1, 100, 255]


def test_big_endian_sixteen_bit_tiff(tmp_path: Path) -> None:
    image = Image.frombytes("I;16B", (2, 1), np.array([25700, 65535], dtype=">u2").tobytes())
    assert read_image_file(saved(image, tmp_path / "a.tif"))[0, :, 0].tolist() == [100, 255]


def test_float_tiff_from_0_to_1(tmp_path: Path) -> None:
    values = np.array([[0.0, 0.5, 1.0]], dtype=np.float32)
    assert read_image_file(saved(Image.fromarray(values), tmp_path / "a.tif"))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    "values",
    [np.array([[0, 70_000]], np.int32), np.array([[-1, 3]], np.int32), np.array([[np.nan, 0]], np.float32)],
)
def test_pixels_without_a_defined_white_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    path = saved(Image.fromarray(values), tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"a\.tif: .*must be in 0 to"):
        read_image_file(path)


def test_cmyk_jpeg_becomes_rgb(tmp_path: Path) -> None:
    pixels = read_image_file(saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), tmp_path / "a.jpg", quality=100))
    assert pixels.shape == (8, 8, 3)
    assert np.abs(pixels.astype(int) - RED).max() <= 2


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_exif_rotation_is_applied(tmp_path: Path, suffix: str) -> None:
    image = Image.new("RGB", (32, 16), "white")
    image.paste(RED, (0, 0, 16, 16))  # red on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the left side is up
    pixels = read_image_file(saved(image, tmp_path / f"a.{suffix}", exif=exif)).astype(int)
    assert pixels.shape == (32, 16, 3)
    assert np.abs(pixels[4, 8] - RED).max() < 12
    assert np.abs(pixels[28, 8] - (255, 255, 255)).max() < 12


def test_damaged_exif_does_not_break_the_picture(tmp_path: Path) -> None:
    for exif in (b"Exif\x00\x00II*\x00\xff\xff\xff\x7f", b"Exif\x00\x00MM\x00no tiff here"):
        for suffix in ("png", "jpg", "webp"):
            path = saved(Image.new("RGB", (8, 8), RED), tmp_path / f"a.{suffix}", exif=exif)
            assert read_image_file(path).shape == (8, 8, 3)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_of_an_animation_the_first_frame_counts(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN)]
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(frames[0], tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    assert (read_image_file(path) == RED).all()


def test_multi_picture_jpeg(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN)]
    path = tmp_path / "phone.jpg"
    frames[0].save(path, format="MPO", save_all=True, append_images=frames[1:], quality=100)
    assert np.abs(read_image_file(path).astype(int) - RED).max() <= 2


def test_the_content_decides_not_the_extension(tmp_path: Path) -> None:
    path = tmp_path / "really_a_png.jpg"
    Image.new("RGB", (4, 4), RED).save(path, format="PNG")
    assert (read_image_file(path) == RED).all()


def test_short_side_is_resized_and_the_centre_cropped(tmp_path: Path) -> None:
    image = Image.new("RGB", (60, 20), RED)
    image.paste(GREEN, (20, 0, 40, 20))  # the middle third
    pixels = read_image_file(saved(image, tmp_path / "a.png"), image_size=10)
    assert pixels.shape == (10, 10, 3)
    assert (pixels[:, 2:8] == GREEN).all()
    tall = image.transpose(Image.Transpose.ROTATE_90)
    assert (read_image_file(saved(tall, tmp_path / "b.png"), image_size=10)[2:8] == GREEN).all()


def test_shrinking_is_antialiased(tmp_path: Path) -> None:
    checkers = np.indices((64, 64)).sum(axis=0) % 2 * 255
    pixels = read_image_file(saved(Image.fromarray(checkers.astype(np.uint8)), tmp_path / "a.png"), image_size=8)
    assert np.abs(pixels.astype(int) - 128).max() <= 2


@pytest.mark.parametrize("size", [(1, 1), (1, 301), (301, 1), (7, 13), (33, 31)])
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    pixels = read_image_file(saved(Image.new("RGB", size, (9, 8, 7)), tmp_path / "a.png"), image_size=16)
    assert (pixels == (9, 8, 7)).all()
    assert pixels.shape == (16, 16, 3)


def test_channels_can_be_asked_for(tmp_path: Path) -> None:
    colour = saved(Image.new("RGB", (2, 2), GREEN), tmp_path / "c.png")
    assert read_image_file(colour, in_chans=1)[0, 0].tolist() == [150]
    grey = saved(Image.new("L", (2, 2), 5), tmp_path / "g.png")
    assert read_image_file(grey, in_chans=3)[0, 0].tolist() == [5, 5, 5]


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 60_000])  # Pillow only warns about the first
def test_a_decompression_bomb_is_broken(tmp_path: Path, side: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(side, side))
    with pytest.raises(InputError, match=r"bomb\.png: .*decompression bomb"):
        read_image_file(path)


def test_missing_empty_and_foreign_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    # A PostScript file must not reach the plugin that starts Ghostscript.
    (tmp_path / "script.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    for name in ("missing.png", "empty.png", "text.png", "script.png"):
        with pytest.raises(InputError) as caught:
            read_image_file(tmp_path / name)
        assert caught.value.where == str(tmp_path / name)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tif", "webp", "bmp", "ppm"])
def test_truncation_anywhere_is_an_image_or_an_input_error(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    whole = saved(Image.fromarray(noise), tmp_path / f"whole.{suffix}").read_bytes()
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=rf"cut\.{suffix}: must be an image that can be decoded"):
        read_image_file(path)
    for length in range(0, len(whole), 17):
        path.write_bytes(whole[:length])
        with contextlib.suppress(InputError):
            read_image_file(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tif", "webp", "bmp", "ppm"])
def test_flipped_bytes_raise_nothing_else_and_warn_nobody(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    whole = saved(Image.fromarray(noise), tmp_path / f"whole.{suffix}").read_bytes()
    path = tmp_path / f"flipped.{suffix}"
    for _ in range(150):
        damaged = bytearray(whole)
        for position in rng.integers(0, min(len(whole), 120), 3):
            damaged[position] = int(rng.integers(0, 256))
        path.write_bytes(damaged)
        with contextlib.suppress(InputError):
            assert read_image_file(path, image_size=4).shape[:2] == (4, 4)
