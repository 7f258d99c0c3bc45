from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitsearch.config.dataset import DatasetSpec
from vitsearch.train.data import READERS, load_dataset

REPO = Path(__file__).parents[4]


def test_digits_as_people_know_them() -> None:
    data = load_dataset(DatasetSpec(kind="digits"), image_size=8, seed=0)
    assert data.images_NHWC.shape == (1797, 8, 8, 1)
    assert (data.images_NHWC.dtype, data.labels_N.dtype, data.train.dtype) == (np.uint8, np.int64, np.int64)
    assert data.class_names == tuple("0123456789")
    assert data.images_NHWC.max() == 255
    assert (len(data.train), len(data.val), len(data.test)) == (1149, 288, 360)
    assert 0.1 < data.chance_accuracy < 0.11
    used = data.images_NHWC[data.train] / 255
    assert data.mean == pytest.approx([used.mean()])
    assert data.std == pytest.approx([used.std()])
    assert data.skipped == ()


def test_size_and_channels_are_as_asked() -> None:
    data = load_dataset(DatasetSpec(kind="digits", in_chans=3), image_size=16, seed=0)
    assert data.images_NHWC.shape == (1797, 16, 16, 3)
    assert len(data.mean) == len(data.std) == 3
    assert (data.images_NHWC[..., 0] == data.images_NHWC[..., 2]).all()


def test_the_size_does_not_change_the_split() -> None:
    small, large = (load_dataset(DatasetSpec(kind="digits"), image_size=size, seed=7) for size in (8, 12))
    assert np.array_equal(small.val, large.val)
    assert small.fingerprint != large.fingerprint


def test_max_images_leaves_the_rest_out_of_memory() -> None:
    full = load_dataset(DatasetSpec(kind="digits"), image_size=8, seed=0)
    thin = load_dataset(DatasetSpec(kind="digits", max_images=100), image_size=8, seed=0)
    assert len(thin.train) == 100
    assert len(thin.images_NHWC) == len(thin.labels_N) == 100 + 288 + 360
    assert np.array_equal(full.images_NHWC[full.val], thin.images_NHWC[thin.val])
    assert np.array_equal(full.labels_N[full.test], thin.labels_N[thin.test])
    every = np.concatenate([thin.train, thin.val, thin.test])
    assert sorted(every) == list(range(748))


def test_parts_of_different_size_and_colour_are_brought_together(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    rng = np.random.default_rng(0)
    x_train = rng.integers(0, 256, (40, 6, 6), dtype=np.uint8)
    x_test = rng.integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
    np.savez(path, x_train=x_train, y_train=np.arange(40) % 2, x_test=x_test, y_test=np.arange(10) % 2)
    data = load_dataset(DatasetSpec(kind="npz", path=path), image_size=8, seed=0)
    assert data.images_NHWC.shape == (50, 8, 8, 3)
    assert np.array_equal(data.images_NHWC[data.test], x_test)
    assert data.test.tolist() == list(range(40, 50))
    grey = load_dataset(DatasetSpec(kind="npz", path=path, in_chans=1), image_size=8, seed=0)
    assert grey.in_chans == 1


SCRIPT = """
import pathlib, sys
from vitsearch.config.dataset import DatasetSpec
from vitsearch.train.data import load_dataset
if sys.argv[2] == "reversed":
    forward = pathlib.Path.iterdir
    pathlib.Path.iterdir = lambda self: reversed(list(forward(self)))
    deep = pathlib.Path.rglob
    pathlib.Path.rglob = lambda self, pattern: reversed(list(deep(self, pattern)))
spec = DatasetSpec(kind="imagefolder", path=sys.argv[1])
print(load_dataset(spec, image_size=8, seed=5).fingerprint)
"""


def test_listing_order_and_hash_seed_do_not_matter(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("zebra", "ant", "cow"):
        (tmp_path / name).mkdir()
        for i in range(6):
            Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(tmp_path / name / f"{i}.png")
    seen = set()
    for hash_seed, order in (("0", "forward"), ("1", "forward"), ("2", "reversed")):
        result = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(tmp_path), order],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(REPO)},
            capture_output=True,
            text=True,
            check=True,
        )
        seen.add(result.stdout.strip())
    assert len(seen) == 1
    other = load_dataset(DatasetSpec(kind="imagefolder", path=tmp_path), image_size=8, seed=6)
    assert other.fingerprint not in seen


def test_twenty_thousand_cifar_sized_images_are_quick(tmp_path: Path) -> None:
    path = tmp_path / "big.npz"
    images = np.random.default_rng(0).integers(0, 256, (20_000, 32, 32, 3), dtype=np.uint8)
    np.savez(path, x_train=images, y_train=np.arange(20_000) % 10)
    start = time.process_time()
    data = load_dataset(DatasetSpec(kind="npz", path=path), image_size=32, seed=0)
    assert len(data.images_NHWC) == 20_000
    assert time.process_time() - start < 5  # about one second on an idle machine


def test_every_kind_has_a_reader() -> None:
    kinds = DatasetSpec.model_json_schema()["properties"]["kind"]["enum"]
    assert list(READERS) == kinds
