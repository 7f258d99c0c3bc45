from __future__ import annotations

import io
from functools import partial

import numpy as np
import pytest
from PIL import Image

from vitsearch.errors import InputError
from vitsearch.train.data.readers.decoding import Encoded, decode_all


def encoded(name: str, content: bytes) -> Encoded:
    return Encoded(where=f"/there/{name}", short_name=name, open=partial(io.BytesIO, content))


def picture(colour: int | tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("L" if isinstance(colour, int) else "RGB", (5, 5), colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_order_is_kept_and_colour_decides_for_all() -> None:
    sources = [encoded(str(i), picture(i)) for i in range(50)]
    images, kept, skipped = decode_all(sources, image_size=4, on_broken_image="error")
    assert images.shape == (50, 4, 4, 1)
    assert images[:, 0, 0, 0].tolist() == kept.tolist() == list(range(50))
    assert skipped == ()
    images, _, _ = decode_all([*sources, encoded("c", picture((1, 2, 3)))], image_size=4, on_broken_image="error")
    assert images.shape == (51, 4, 4, 3)
    assert images[7, 0, 0].tolist() == [7, 7, 7]


def test_broken_ones_are_left_out_or_the_first_is_raised() -> None:
    sources = [encoded("a", picture(1)), encoded("b", b""), encoded("c", picture(3)), encoded("d", b"x")]
    images, kept, skipped = decode_all(sources, image_size=4, on_broken_image="skip")
    assert images[:, 0, 0, 0].tolist() == [1, 3]
    assert kept.tolist() == [0, 2]
    assert skipped == ("b", "d")
    with pytest.raises(InputError) as caught:
        decode_all(sources, image_size=4, on_broken_image="error")
    assert caught.value.where == "/there/b"


def test_nothing_left_is_an_empty_array() -> None:
    images, kept, _ = decode_all([encoded("a", b"")], image_size=4, on_broken_image="skip")
    assert images.shape == (0, 4, 4, 1)
    assert kept.dtype == np.int64
