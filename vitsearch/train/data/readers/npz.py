"""Arrays in a NumPy archive: ``x_train``, ``y_train`` and, optionally, ``x_test``, ``y_test`` and more."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from vitsearch.config.dataset import DatasetSpec
from vitsearch.errors import InputError
from vitsearch.train.data.arrays import ImageArray
from vitsearch.train.data.readers.labels import AnyArray, encode_labels
from vitsearch.train.data.readers.raw import RawImages, RawPart

PARTS = ("train", "val", "test")
UNREADABLE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)


def read_npz(spec: DatasetSpec, _image_size: int, /) -> RawImages:
    """Read a ``.npz`` file without ever unpickling.

    ``x_<part>`` is uint8, or float from 0 to 1, of shape (N, H, W, C) with C 1 or 3, or (N, H, W).
    ``y_<part>`` holds integers or strings, shape (N,) or (N, 1). Parts are ``train`` and, optionally, ``val`` and
    ``test``. An optional ``class_names`` of strings names the classes that integer labels index; without it the
    distinct training labels are the classes.

    Raises:
        InputError: The file or a key is missing, or an array breaks these rules.
    """
    assert isinstance(spec.path, Path), "DatasetSpec demands it, and load_dataset fetches addresses"
    arrays, names = _arrays(spec.path)
    where = str(spec.path)
    images: dict[str, ImageArray] = {}
    labels: dict[str, AnyArray] = {}
    for part in PARTS:
        x_key, y_key = f"x_{part}", f"y_{part}"
        if part != "train" and x_key not in arrays and y_key not in arrays:
            continue
        for key in (x_key, y_key):
            if key not in arrays:
                raise InputError(
                    rule=f"must hold {key}",
                    where=where,
                    field=key,
                    value=names or "no array at all",
                    remedy=f"save it with np.savez(file, {x_key}=images, {y_key}=labels)",
                )
        images[part] = _as_images(arrays[x_key], where, x_key)
        labels[y_key] = _as_labels(arrays[y_key], len(images[part]), where, y_key)
    encoded, class_names = encode_labels(labels, _class_names(arrays, where), where=where)
    parts = {
        part: RawPart(images_NHWC=images_NHWC, labels_N=encoded[f"y_{part}"])
        for part, images_NHWC in images.items()
    }
    return RawImages(train=parts["train"], val=parts.get("val"), test=parts.get("test"), class_names=class_names)


def _arrays(path: Path) -> tuple[dict[str, AnyArray], list[str]]:
    """The arrays that count, and the names of all."""
    wanted = {*(f"{axis}_{part}" for axis in "xy" for part in PARTS), "class_names"}
    remedy = "write it with np.savez or np.savez_compressed, without object arrays"
    try:
        with path.open("rb") as file:  # np.load would leave a file open that is no archive
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.lib.npyio.NpzFile):
                return {key: archive[key] for key in archive.files if key in wanted}, sorted(archive.files)
    except FileNotFoundError:
        raise InputError("must be a file", where=str(path), field="dataset.path", remedy="correct it") from None
    except UNREADABLE as error:
        rule = f"must be an .npz archive that can be read without pickle ({error})"
        raise InputError(rule, where=str(path), remedy=remedy) from error
    raise InputError("must be an .npz archive, not a single array", where=str(path), remedy=remedy)


def _as_images(array: AnyArray, where: str, key: str) -> ImageArray:
    if array.ndim == 3:
        array = array[..., None]
    shape = array.shape
    if array.ndim != 4 or shape[3] not in {1, 3}:
        channels_first = array.ndim == 4 and shape[1] in {1, 3}
        raise InputError(
            rule="must have shape (N, H, W, C) with C 1 or 3, or (N, H, W)",
            where=where,
            field=key,
            value=shape,
            remedy=f"save {key}.transpose(0, 2, 3, 1)" if channels_first else "",
        )
    if array.size == 0:
        raise InputError("must hold at least one image", where=where, field=key, value=shape)
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise InputError(
            rule="must be uint8, or float from 0 to 1",
            where=where,
            field=key,
            value=str(array.dtype),
            remedy=f"save {key}.astype(np.uint8) if its values are 0 to 255",
        )
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1):  # so written, NaN is refused too
        raise InputError(
            rule="must be uint8, or float from 0 to 1",
            where=where,
            field=key,
            value=f"floats from {low:g} to {high:g}",
            remedy="rescale it",
        )
    return np.rint(array.astype(np.float32) * 255).astype(np.uint8)


def _as_labels(array: AnyArray, count: int, where: str, key: str) -> AnyArray:
    labels_N = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if labels_N.shape != (count,):
        raise InputError(
            rule=f"must hold one label for each of the {count} images",
            where=where,
            field=key,
            value=f"shape {array.shape}",
        )
    return labels_N


def _class_names(arrays: dict[str, AnyArray], where: str) -> tuple[str, ...] | None:
    names = arrays.get("class_names")
    if names is None:
        return None
    if names.ndim != 1 or names.dtype.kind != "U" or len(set(names.tolist())) < len(names):
        raise InputError("must be a list of distinct strings", where=where, field="class_names", value=names)
    return tuple(names.tolist())
