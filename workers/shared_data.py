"""A decoded data set in Ray's object store: every trainer of a node maps the same memory."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import ray

from vitsearch.train.data import ImageData


@dataclass(frozen=True, kw_only=True)
class SharedData:
    """References to the arrays, and the small fields as they are.

    Attributes:
        images_ref: Object reference of ``images_NHWC``.
        labels_ref: Object reference of ``labels_N``.
        meta: The other fields of ``ImageData``.
        answers: Object references of what teachers have said, two for each.
    """

    images_ref: Any
    labels_ref: Any
    meta: dict[str, object]
    answers: tuple[Any, ...] = ()

    @classmethod
    def put(cls, data: ImageData) -> SharedData:
        """Copy the arrays into the object store, once."""
        arrays = {"images_NHWC", "labels_N"}
        meta = {field.name: getattr(data, field.name) for field in fields(data) if field.name not in arrays}
        return cls(images_ref=ray.put(data.images_NHWC), labels_ref=ray.put(data.labels_N), meta=meta)
