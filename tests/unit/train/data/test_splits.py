from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vitsearch.config.dataset import DatasetSpec
from vitsearch.errors import InputError
from vitsearch.train.data.splits import Splits, split


def run(
    counts: list[int], *, own_val: int = 0, own_test: int = 0, seed: int = 0, **settings: Any
) -> tuple[np.ndarray, Splits]:
    labels = np.repeat(np.arange(len(counts)), counts)
    extra = np.arange(own_val + own_test) % len(counts)
    labels_N = np.concatenate([labels, extra]).astype(np.int64)
    names = tuple(f"c{i}" for i in range(len(counts)))
    spec = DatasetSpec(kind="digits", **settings)
    splits = split(
        labels_N, num_val=own_val, num_test=own_test, class_names=names, spec=spec, seed=seed, where="here"
    )
    parts = [splits.train, splits.val, splits.test]
    joined = np.concatenate(parts)
    assert len(np.unique(joined)) == len(joined), "disjoint"
    assert all((np.diff(part) > 0).all() for part in parts), "ascending"
    return labels_N, splits


def share(labels_N: np.ndarray, part: np.ndarray) -> list[float]:
    return (np.bincount(labels_N[part]) / len(part)).tolist()


def test_shares_and_stratification() -> None:
    labels_N, splits = run([600, 300, 100], test_fraction=0.1, val_fraction=0.2)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (720, 180, 100)
    for part in (splits.train, splits.val, splits.test):
        assert share(labels_N, part) == pytest.approx([0.6, 0.3, 0.1], abs=0.01)


def test_the_seed_decides() -> None:
    first, again, other = (run([50, 50], seed=seed)[1] for seed in (3, 3, 4))
    assert np.array_equal(first.val, again.val)
    assert np.array_equal(first.test, again.test)
    assert not np.array_equal(first.val, other.val)


@pytest.mark.parametrize("seed", [2**63 + 5, -1])
def test_any_integer_is_a_seed(seed: int) -> None:
    run([30, 30], seed=seed, max_images=20)


def test_own_parts_are_kept() -> None:
    _, splits = run([20, 20], own_test=6)
    assert splits.test.tolist() == list(range(40, 46))
    assert len(splits.val) == 8
    _, splits = run([20, 20], own_val=4)
    assert splits.val.tolist() == list(range(40, 44))
    assert len(splits.test) == 8
    _, splits = run([1, 1], own_val=4, own_test=4)
    assert (splits.train.tolist(), splits.val.tolist(), splits.test.tolist()) == (
        [0, 1],
        [2, 3, 4, 5],
        [6, 7, 8, 9],
    )


def test_max_images_thins_the_training_images_only() -> None:
    labels_N, full = run([600, 300, 100])
    _, thin = run([600, 300, 100], max_images=50)
    assert np.array_equal(full.val, thin.val)
    assert np.array_equal(full.test, thin.test)
    assert set(thin.train) < set(full.train)
    assert share(labels_N, thin.train) == pytest.approx([0.6, 0.3, 0.1])


@pytest.mark.parametrize("max_images", [20, 21, 57, 638, 639, 640])
def test_max_images_is_met_exactly_and_keeps_rare_classes(max_images: int) -> None:
    labels_N, splits = run([990, 3, 3, 4], max_images=max_images)
    assert len(splits.train) == min(max_images, 640)
    assert np.bincount(labels_N[splits.train], minlength=4).min() >= 1


def test_max_images_above_the_number_changes_nothing() -> None:
    assert np.array_equal(run([50, 50])[1].train, run([50, 50], max_images=1000)[1].train)


def test_max_images_below_the_number_of_classes() -> None:
    with pytest.raises(InputError, match=r"dataset\.max_images: must be at least the number of classes \(25\)"):
        run([10] * 25, max_images=20)


def test_one_class_only() -> None:
    with pytest.raises(InputError, match=r"here: must have at least two classes, but got \['c0'\]"):
        run([10])


def test_small_classes_are_named() -> None:
    with pytest.raises(InputError, match=r"at least 3 training images per class.*'c1': 2.*'c2': 0.*; add images"):
        run([10, 2, 0])
    with pytest.raises(InputError, match=r"at least 1 training image per class"):
        run([10, 0], own_val=2, own_test=2)


def test_a_fraction_too_small_for_the_classes() -> None:
    with pytest.raises(InputError, match=r"dataset\.test_fraction: must set aside .*0\.1; raise it"):
        run([3] * 5, test_fraction=0.1)
    with pytest.raises(InputError, match=r"dataset\.val_fraction: must set aside .*0\.01; raise it"):
        run([20] * 5, val_fraction=0.01)


def test_a_fraction_that_leaves_too_little() -> None:
    with pytest.raises(InputError, match=r"dataset\.test_fraction: must leave at least 2 .*0\.8; lower it"):
        run([3, 3, 3], test_fraction=0.8, val_fraction=0.1)
    with pytest.raises(InputError, match=r"dataset\.val_fraction: must leave at least 1 .*0\.8; lower it"):
        run([3, 3, 30], own_test=3, val_fraction=0.8, test_fraction=0.1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("small", [3, 4, 5])
def test_three_images_suffice_or_the_error_says_why(small: int, seed: int) -> None:
    labels_N, splits = run([40, 40, small], seed=seed)
    assert np.bincount(labels_N[splits.train], minlength=3).min() >= 1
