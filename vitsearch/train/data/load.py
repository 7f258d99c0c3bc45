"""From a data set's description to arrays that training reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from vitsearch.config.dataset import DatasetSpec
from vitsearch.fetching import fetched, only_folder
from vitsearch.train.data.arrays import Channels, ImageArray, squared, with_channels
from vitsearch.train.data.image_data import ImageData, IndexArray, channel_statistics, fingerprint
from vitsearch.train.data.readers import READERS
from vitsearch.train.data.readers.raw import RawPart, source_of
from vitsearch.train.data.splits import split

LOOKED_INTO = {"imagefolder", "huggingface"}  # the others expect the folder around what their archive holds


def load_dataset(
    spec: DatasetSpec, *, image_size: int, seed: int, on_step: Callable[[str], None] = lambda _: None
) -> ImageData:
    """Read, square and split a data set.

    The same seed gives the same split and fingerprint on every machine. Images that ``spec.max_images`` leaves out
    are not in the result.

    Args:
        spec: What to read.
        image_size: Side of the square images in pixels.
        seed: Decides the split.
        on_step: Told before a data set at an address is fetched.

    Raises:
        InputError: The data set is missing, cannot be fetched, unreadable, or too small to be split.
        MissingExtraError: ``kind: huggingface`` without the ``huggingface`` extra.
    """
    assert image_size >= 1
    where = source_of(spec)
    if spec.path is not None and not isinstance(spec.path, Path):
        path = fetched(spec.path, field="dataset.path", on_step=on_step)
        path = only_folder(path) if spec.kind in LOOKED_INTO and path.is_dir() else path
        spec = spec.model_copy(update={"path": path})
    raw = READERS[spec.kind](spec, image_size)
    parts = [part for part in (raw.train, raw.val, raw.test) if part is not None]
    labels_N = np.concatenate([part.labels_N for part in parts])
    splits = split(
        labels_N,
        num_val=len(raw.val.labels_N) if raw.val else 0,
        num_test=len(raw.test.labels_N) if raw.test else 0,
        class_names=raw.class_names,
        spec=spec,
        seed=seed,
        where=where,
    )
    used = np.sort(np.concatenate([splits.train, splits.val, splits.test]))
    train, val, test = (np.searchsorted(used, part) for part in (splits.train, splits.val, splits.test))
    in_chans: Channels = spec.in_chans or (3 if any(part.images_NHWC.shape[3] == 3 for part in parts) else 1)
    images_NHWC = _assembled(parts, used, image_size, in_chans)
    labels_N = labels_N[used]
    mean, std = channel_statistics(images_NHWC, train)
    return ImageData(
        images_NHWC=images_NHWC,
        labels_N=labels_N,
        train=train,
        val=val,
        test=test,
        class_names=raw.class_names,
        mean=mean,
        std=std,
        fingerprint=fingerprint(images_NHWC, labels_N, (train, val, test), raw.class_names),
        skipped=raw.skipped,
    )


def _assembled(parts: list[RawPart], used: IndexArray, image_size: int, in_chans: Channels) -> ImageArray:
    """The used images of all parts, one after another, at their final shape."""
    out: list[ImageArray] = []
    start = 0
    for part in parts:
        end = start + len(part.labels_N)
        chosen = used[(used >= start) & (used < end)] - start
        images_NHWC = part.images_NHWC if len(chosen) == len(part.labels_N) else part.images_NHWC[chosen]
        out.append(with_channels(squared(images_NHWC, image_size), in_chans))
        start = end
    return out[0] if len(out) == 1 else np.concatenate(out)
