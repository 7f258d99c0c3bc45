"""Labels of any spelling into indices 0, 1, ..."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from vitsearch.errors import InputError
from vitsearch.train.data.image_data import IndexArray

AnyArray = npt.NDArray[Any]


def encode_labels(
    labels_by_part: Mapping[str, AnyArray], class_names: tuple[str, ...] | None, *, where: str
) -> tuple[dict[str, IndexArray], tuple[str, ...]]:
    """Map integers or strings to indices.

    Without class names the classes are the distinct labels of the first part (the training images), in ascending
    order. With them, labels must be integers that index the names.

    Args:
        labels_by_part: One-dimensional arrays by the name they have in messages, training first.
        class_names: One name per class, if known.
        where: The data set's name in messages.

    Returns:
        Indices by part, and the class names.

    Raises:
        InputError: A label is neither integer nor string, indexes no class name, or never occurs in training.
    """
    for name, labels in labels_by_part.items():
        if labels.dtype.kind not in ("iu" if class_names else "iuU"):
            raise InputError(
                rule=f"must hold integer{'' if class_names else ' or string'} labels",
                where=where,
                field=name,
                value=str(labels.dtype),
            )
    if class_names is None:
        first = next(iter(labels_by_part.values()))
        known = np.unique(first)
        names = tuple(str(label) for label in known)
    else:
        known = np.arange(len(class_names))
        names = class_names
    encoded: dict[str, IndexArray] = {}
    for name, labels in labels_by_part.items():
        unknown = np.setdiff1d(labels, known)
        if len(unknown):
            raise InputError(
                rule="must hold only labels of the training images"
                if class_names is None
                else f"must hold labels from 0 to {len(names) - 1}, one for each class name",
                where=where,
                field=name,
                value=unknown[:5].tolist(),
                remedy="correct the labels",
            )
        encoded[name] = np.searchsorted(known, labels).astype(np.int64)
    return encoded, names
