"""A Hugging Face data set: by name from the Hub, or from a folder."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vitsearch.config.dataset import DatasetSpec
from vitsearch.errors import InputError, MissingExtraError
from vitsearch.train.data.readers.decoding import Encoded, decode_all
from vitsearch.train.data.readers.labels import AnyArray, encode_labels
from vitsearch.train.data.readers.raw import RawImages, RawPart, source_of

SPLIT_NAMES = {"train": ("train",), "val": ("validation", "valid", "val"), "test": ("test",)}


def read_huggingface(spec: DatasetSpec, image_size: int, /) -> RawImages:
    """Read a data set with an image column and a label column.

    ``spec.path`` is a folder written by ``save_to_disk`` or one that ``datasets.load_dataset`` understands;
    otherwise ``spec.name`` is fetched from the Hub. Splits ``train``, ``validation`` and ``test`` are used as
    such; a single split of any name is the training part. A split whose labels are all -1 has no published labels
    and is ignored.

    Raises:
        MissingExtraError: ``datasets`` is not installed.
        InputError: It cannot be loaded, a column or the training split is missing, or an image is broken and
            ``on_broken_image`` is ``error``.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("dataset.kind=huggingface", "huggingface") from error
    where = source_of(spec)
    parts = _parts(_load(datasets, spec, where), where)
    labels: dict[str, AnyArray] = {}
    class_names: tuple[str, ...] | None = None
    for part, table in list(parts.items()):
        _check_columns(datasets, table, spec, where)
        values = _labels(table, spec, where)
        if part != "train" and values.dtype.kind in "iu" and (values == -1).all():
            del parts[part]
            continue
        labels[part] = values
        feature = table.features[spec.label_column]
        if part == "train" and isinstance(feature, datasets.ClassLabel):
            class_names = tuple(feature.names)
    encoded, names = encode_labels(labels, class_names, where=where)
    raw: dict[str, RawPart] = {}
    skipped: list[str] = []
    for part, table in parts.items():
        rows = table.select_columns([spec.image_column]).cast_column(
            spec.image_column, datasets.Image(decode=False)
        )
        sources = [
            Encoded(
                where=f"{where}: {part}[{i}]",
                short_name=f"{part}[{i}]",
                open=partial(_content, rows, i, spec.image_column),
            )
            for i in range(len(rows))
        ]
        images_NHWC, kept, broken = decode_all(
            sources, image_size=image_size, on_broken_image=spec.on_broken_image
        )
        if not len(kept):
            raise InputError("must hold at least one image that can be decoded", where=where, field=part)
        raw[part] = RawPart(images_NHWC=images_NHWC, labels_N=encoded[part][kept])
        skipped += broken
    return RawImages(
        train=raw["train"],
        val=raw.get("val"),
        test=raw.get("test"),
        class_names=names,
        skipped=tuple(skipped),
    )


def _load(datasets: Any, spec: DatasetSpec, where: str) -> Any:  # datasets is an optional, untyped dependency
    try:
        if spec.path is None:
            return datasets.load_dataset(spec.name)
        assert isinstance(spec.path, Path), "load_dataset fetches addresses"
        saved = any((spec.path / name).is_file() for name in ("dataset_dict.json", "state.json"))
        return datasets.load_from_disk(str(spec.path)) if saved else datasets.load_dataset(str(spec.path))
    except (OSError, ValueError, RuntimeError, LookupError) as error:
        raise InputError(
            rule=f"must be a data set that Hugging Face datasets can load ({error})",
            where=where,
            remedy="check dataset.name or dataset.path and the network",
        ) from error


def _parts(loaded: Any, where: str) -> dict[str, Any]:
    if not isinstance(loaded, dict):
        return {"train": loaded}
    if len(loaded) == 1:
        return {"train": next(iter(loaded.values()))}
    parts: dict[str, Any] = {}
    for part, spellings in SPLIT_NAMES.items():
        for name in spellings:
            if name in loaded and len(loaded[name]):
                parts.setdefault(part, loaded[name])
    if "train" not in parts:
        raise InputError("must have a split named train", where=where, value=sorted(loaded))
    return parts


def _check_columns(datasets: Any, table: Any, spec: DatasetSpec, where: str) -> None:
    for field, column in (("image_column", spec.image_column), ("label_column", spec.label_column)):
        if column not in table.features:
            raise InputError(
                rule="must name a column of the data set",
                where=where,
                field=f"dataset.{field}",
                value=column,
                remedy=f"choose from {sorted(table.features)}",
            )
    if not isinstance(table.features[spec.image_column], datasets.Image):
        raise InputError(
            rule="must name a column of images",
            where=where,
            field="dataset.image_column",
            value=spec.image_column,
            remedy="cast it with cast_column(name, datasets.Image())",
        )


def _labels(table: Any, spec: DatasetSpec, where: str) -> AnyArray:
    values = list(table[spec.label_column])
    if None in values:
        raise InputError(
            rule="must give every image a label",
            where=where,
            field="dataset.label_column",
            value=spec.label_column,
            remedy="remove the rows without one",
        )
    return np.array(values)


def _content(rows: Any, index: int, column: str) -> Path | io.BytesIO:
    image = rows[index][column]
    if image is None:
        return io.BytesIO()
    return Path(image["path"]) if image["bytes"] is None else io.BytesIO(image["bytes"])
