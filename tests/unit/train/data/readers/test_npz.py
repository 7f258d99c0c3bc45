from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitsearch.config.dataset import DatasetSpec
from vitsearch.errors import InputError
from vitsearch.train.data import load_dataset
from vitsearch.train.data.readers import RawImages
from vitsearch.train.data.readers.npz import read_npz

X = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), dtype=np.uint8)
Y = np.arange(12) % 3
CIFAR = Path(__file__).parents[5].parent / "shared" / "data" / "cifar10_5k.npz"


def read(tmp_path: Path, **arrays: Any) -> RawImages:
    path = tmp_path / "a.npz"
    np.savez(path, **{"x_train": X, "y_train": Y, **arrays})
    return read_npz(DatasetSpec(kind="npz", path=path), 4)


def test_train_only(tmp_path: Path) -> None:
    raw = read(tmp_path)
    assert np.array_equal(raw.train.images_NHWC, X)
    assert np.array_equal(raw.train.labels_N, Y)
    assert raw.class_names == ("0", "1", "2")
    assert raw.test is None
    assert raw.val is None


def test_own_parts_and_class_names(tmp_path: Path) -> None:
    names = np.array(["ant", "bee", "cow"])
    raw = read(tmp_path, x_test=X[:2], y_test=Y[:2], x_val=X[:3], y_val=Y[:3], class_names=names)
    assert raw.class_names == ("ant", "bee", "cow")
    assert raw.test is not None
    assert raw.val is not None
    assert (len(raw.test.labels_N), len(raw.val.labels_N)) == (2, 3)


def test_grey_without_a_channel_axis(tmp_path: Path) -> None:
    assert read(tmp_path, x_train=X[..., 0]).train.images_NHWC.shape == (12, 4, 4, 1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_from_0_to_1(tmp_path: Path, dtype: type) -> None:
    images = read(tmp_path, x_train=(X / 255).astype(dtype)).train.images_NHWC
    assert images.dtype == np.uint8
    assert np.array_equal(images, X)


def test_labels_as_a_column_from_one_or_as_strings(tmp_path: Path) -> None:
    raw = read(tmp_path, y_train=(Y + 1)[:, None].astype(np.uint8))
    assert np.array_equal(raw.train.labels_N, Y)
    assert raw.class_names == ("1", "2", "3")
    raw = read(tmp_path, y_train=np.array(["cow", "ant", "bee"])[Y])
    assert raw.class_names == ("ant", "bee", "cow")
    assert raw.train.labels_N[:3].tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("arrays", "field", "message"),
    [
        ({"x_train": X.transpose(0, 3, 1, 2)}, "x_train", r"shape .*; save x_train\.transpose\(0, 2, 3, 1\)"),
        ({"x_train": X[..., :2]}, "x_train", r"C 1 or 3, .*\(12, 4, 4, 2\)"),
        ({"x_train": X[0, 0]}, "x_train", r"must have shape"),
        ({"x_train": X[:0]}, "x_train", r"at least one image"),
        ({"x_train": X[:, :0]}, "x_train", r"at least one image"),
        ({"x_train": X.astype(np.int64)}, "x_train", r"'int64'; save x_train\.astype\(np\.uint8\)"),
        ({"x_train": X.astype(float)}, "x_train", r"floats from 0 to 255.*rescale"),
        ({"x_train": np.full(X.shape, np.nan)}, "x_train", r"floats from nan"),
        ({"y_train": Y[:5]}, "y_train", r"each of the 12 images, but got 'shape \(5,\)'"),
        ({"y_train": np.eye(12)}, "y_train", r"each of the 12 images"),
        ({"y_train": Y.astype(float)}, "y_train", r"integer or string labels, but got 'float64'"),
        ({"x_test": X}, "y_test", r"must hold y_test.*np\.savez\(file, x_test=images, y_test=labels\)"),
        ({"y_test": Y}, "x_test", r"must hold x_test"),
        ({"x_test": X, "y_test": Y + 1}, "y_test", r"labels of the training images, but got \[3\]"),
        ({"class_names": np.array(["a", "b"])}, "y_train", r"labels from 0 to 1.*\[2\]"),
        ({"class_names": np.array(["a", "b", "a"])}, "class_names", r"distinct strings"),
        ({"class_names": np.arange(3)}, "class_names", r"distinct strings"),
        (
            {"class_names": np.array(["a", "b", "c"]), "y_train": Y.astype(str)},
            "y_train",
            r"must hold integer labels",
        ),
    ],
)
def test_each_broken_rule_names_file_key_and_remedy(
    tmp_path: Path, arrays: dict[str, Any], field: str, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, **arrays)
    assert caught.value.where == str(tmp_path / "a.npz")
    assert caught.value.field == field


def refused(path: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_npz(DatasetSpec(kind="npz", path=path), 4)
    assert caught.value.where == str(path)


def test_missing_key(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=X)
    refused(tmp_path / "a.npz", "must hold x_train")


def test_files_that_are_no_archive(tmp_path: Path) -> None:
    refused(tmp_path / "missing.npz", "must be a file")
    refused(tmp_path, r"\.npz archive")
    (tmp_path / "empty.npz").touch()
    refused(tmp_path / "empty.npz", r"\.npz archive")
    (tmp_path / "text.npz").write_text("hello, this is not an archive")
    refused(tmp_path / "text.npz", r"\.npz archive")
    np.save(tmp_path / "single.npy", X)
    refused(tmp_path / "single.npy", "not a single array")


def test_a_damaged_archive(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "whole.npz", x_train=X, y_train=Y)
    whole = (tmp_path / "whole.npz").read_bytes()
    path = tmp_path / "damaged.npz"
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, r"\.npz archive")
    path.write_bytes(whole[:200] + b"\x00" * 50 + whole[250:])
    refused(path, r"\.npz archive")


class Canary:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("unpickled"),))


def test_nothing_is_ever_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", x_train=np.array([Canary()], dtype=object), y_train=Y)
    refused(Path("a.npz"), "without pickle")
    assert not Path("unpickled").exists()


@pytest.mark.skipif(not CIFAR.exists(), reason="needs ../shared/data/cifar10_5k.npz beside the repository")
def test_real_cifar() -> None:
    data = load_dataset(DatasetSpec(kind="npz", path=CIFAR), image_size=32, seed=0)
    assert data.images_NHWC.shape == (6000, 32, 32, 3)
    assert (len(data.train), len(data.val), len(data.test)) == (4000, 1000, 1000)
    assert data.class_names[0] == "airplane"
    assert data.chance_accuracy == pytest.approx(0.1)
    assert data.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=0.01)
    assert data.std == pytest.approx((0.2470, 0.2435, 0.2616), abs=0.01)
