"""Which images train, which validate, which test: fixed by the seed and the labels alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from vitsearch.config.dataset import DatasetSpec
from vitsearch.errors import InputError
from vitsearch.train.data.image_data import IndexArray

# One image each to train on, to validate with and to test with.
MIN_PER_CLASS = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Splits:
    """Three disjoint, ascending index arrays."""

    train: IndexArray
    val: IndexArray
    test: IndexArray


def split(
    labels_N: IndexArray,
    *,
    num_val: int,
    num_test: int,
    class_names: tuple[str, ...],
    spec: DatasetSpec,
    seed: int,
    where: str,
) -> Splits:
    """Split a data set whose images stand in the order training, own validation, own test.

    A part the data set brings is kept; a missing one is carved out of the training images, stratified, the test
    part first. ``spec.max_images`` thins out the training images only, so that figures of a quick look are
    measured on the same validation images.

    Args:
        labels_N: Classes of all images.
        num_val: Images of the data set's own validation part, 0 if it has none.
        num_test: Likewise for the test part.
        class_names: One name per class.
        spec: The fractions and ``max_images``.
        seed: Any integer.
        where: The data set's name in messages.

    Raises:
        InputError: There is one class only, or a class or a fraction is too small to be split.
    """
    if len(class_names) < 2:
        raise InputError("must have at least two classes", where=where, value=list(class_names))
    num_train = len(labels_N) - num_val - num_test
    pool = np.arange(num_train, dtype=np.int64)
    val = np.arange(num_train, num_train + num_val, dtype=np.int64)
    test = np.arange(num_train + num_val, len(labels_N), dtype=np.int64)
    needed = 1 if num_val and num_test else MIN_PER_CLASS
    _check_classes(labels_N[pool], class_names, needed, where)
    seed_32 = seed % 2**32
    carve = partial(_carve, labels_N, class_names=class_names, seed=seed_32, where=where)
    if not num_test:
        left = 1 if num_val else 2  # of each class: to train, and to validate if that is still to come
        pool, test = carve(pool, field="test_fraction", fraction=spec.test_fraction, left=left)
    if not num_val:
        pool, val = carve(pool, field="val_fraction", fraction=spec.val_fraction, left=1)
    if spec.max_images is not None and spec.max_images < len(pool):
        pool = _thin_out(labels_N, pool, spec.max_images, len(class_names), seed_32)
    return Splits(train=pool, val=val, test=test)


def _check_classes(labels_N: IndexArray, class_names: tuple[str, ...], needed: int, where: str) -> None:
    counts = np.bincount(labels_N, minlength=len(class_names))
    small = {class_names[i]: int(counts[i]) for i in np.flatnonzero(counts < needed)}
    if small:
        raise InputError(
            rule=f"must have at least {needed} training image{'s' if needed > 1 else ''} per class",
            where=where,
            value=small,
            remedy="add images to these classes or remove them",
        )


def _carve(
    labels_N: IndexArray,
    pool: IndexArray,
    *,
    field: str,
    fraction: float,
    left: int,
    class_names: tuple[str, ...],
    seed: int,
    where: str,
) -> tuple[IndexArray, IndexArray]:
    """What stays in the pool, with at least ``left`` images of each class, and what is set aside."""
    from sklearn.model_selection import train_test_split

    refuse = partial(InputError, where=where, field=f"dataset.{field}", value=fraction)
    num_held, num_classes = math.ceil(fraction * len(pool)), len(class_names)
    if num_held < num_classes:
        rule = f"must set aside at least one of the {len(pool)} images per class ({num_classes} classes)"
        raise refuse(rule, remedy="raise it or add images")
    counts = np.zeros(num_classes, dtype=np.int64)
    if len(pool) - num_held >= num_classes:
        kept, held = train_test_split(pool, test_size=num_held, stratify=labels_N[pool], random_state=seed)
        counts = np.bincount(labels_N[kept], minlength=num_classes)
    if counts.min() < left:
        rule = f"must leave at least {left} of the {len(pool)} images for training in each class"
        raise refuse(rule, remedy="lower it or add images to the small classes")
    return np.sort(kept), np.sort(held)


def _thin_out(labels_N: IndexArray, pool: IndexArray, count: int, num_classes: int, seed: int) -> IndexArray:
    """Keep ``count`` images in the proportions of the classes, at least one each.

    ``train_test_split`` would drop a rare class and refuses a count close to the whole.
    """
    if count < num_classes:
        raise InputError(
            rule=f"must be at least the number of classes ({num_classes})",
            field="dataset.max_images",
            value=count,
            remedy="raise it",
        )
    sizes_K = np.bincount(labels_N[pool], minlength=num_classes)
    quota_K = np.maximum(1, sizes_K * count // len(pool))
    while quota_K.sum() != count:
        # The class furthest from its share gives or takes one; ties go to the first.
        excess_K = quota_K - sizes_K * (count / len(pool))
        if quota_K.sum() < count:
            quota_K[np.where(quota_K < sizes_K, excess_K, np.inf).argmin()] += 1
        else:
            quota_K[np.where(quota_K > 1, excess_K, -np.inf).argmax()] -= 1
    rng = np.random.default_rng(seed)
    kept = [rng.permutation(pool[labels_N[pool] == k])[: quota_K[k]] for k in range(num_classes)]
    return np.sort(np.concatenate(kept))
