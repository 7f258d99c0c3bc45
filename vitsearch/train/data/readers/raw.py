"""What a reader returns, before splitting and resizing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from vitsearch.config.dataset import DatasetSpec
from vitsearch.train.data.arrays import ImageArray
from vitsearch.train.data.image_data import IndexArray


@dataclass(frozen=True, kw_only=True, eq=False)
class RawPart:
    """Images of one size with their classes.

    Attributes:
        images_NHWC: uint8, C is 1 or 3; the sizes of two parts may differ.
        labels_N: Indices into the class names.
    """

    images_NHWC: ImageArray
    labels_N: IndexArray


@dataclass(frozen=True, kw_only=True, eq=False)
class RawImages:
    """A data set as it was found.

    Attributes:
        train: The images to train on; missing parts are carved out of them.
        val: The data set's own validation part, not empty.
        test: The data set's own test part, not empty.
        class_names: One name per class.
        skipped: Broken files, relative to the data set's folder.
    """

    train: RawPart
    val: RawPart | None = None
    test: RawPart | None = None
    class_names: tuple[str, ...]
    skipped: tuple[str, ...] = ()


class Reader(Protocol):
    """Reads one kind of data set.

    ``image_size`` is a hint: a reader of files squares each right after decoding, to hold no full-size
    photographs; a reader of arrays ignores it.
    """

    def __call__(self, spec: DatasetSpec, image_size: int, /) -> RawImages:
        """Read everything.

        Raises:
            InputError: The data set is missing or breaks a rule.
        """
        ...


def source_of(spec: DatasetSpec) -> str:
    """The data set's name in messages."""
    return str(spec.path or spec.name or spec.kind)
