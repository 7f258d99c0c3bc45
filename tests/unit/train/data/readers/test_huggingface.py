from __future__ import annotations

import importlib.util
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitsearch.config.dataset import DatasetSpec
from vitsearch.errors import InputError, MissingExtraError
from vitsearch.train.data import load_dataset
from vitsearch.train.data.readers import RawImages
from vitsearch.train.data.readers.huggingface import read_huggingface

needs_datasets = pytest.mark.skipif(
    importlib.util.find_spec("datasets") is None, reason="needs the huggingface extra"
)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'vitsearch\[huggingface\]'"):
        read_huggingface(DatasetSpec(kind="huggingface", name="mnist"), 8)


def png(value: int) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.new("RGB", (10, 10), (value, 0, 50)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def table(count: int, labels: list[Any] | None = None, names: list[str] | None = None) -> Any:
    import datasets

    label = datasets.ClassLabel(names=names) if names else datasets.Value("int64")
    if labels and isinstance(labels[0], str):
        label = datasets.Value("string")
    return from_dict(
        {"image": [png(i) for i in range(count)], "label": labels or [i % 2 for i in range(count)]},
        datasets.Features({"image": datasets.Image(), "label": label}),
    )


def from_dict(columns: dict[str, list[Any]], features: Any) -> Any:
    import datasets

    return datasets.Dataset.from_dict(columns, features=features)


def read(tmp_path: Path, loaded: Any, **settings: Any) -> RawImages:
    path = tmp_path / "saved"
    loaded.save_to_disk(str(path))
    return read_huggingface(DatasetSpec(kind="huggingface", path=path, **settings), 8)


@needs_datasets
def test_splits_and_class_names(tmp_path: Path) -> None:
    import datasets

    names = ["ant", "bee"]
    loaded = datasets.DatasetDict(
        {"train": table(12, names=names), "validation": table(4, names=names), "test": table(6, names=names)}
    )
    raw = read(tmp_path, loaded)
    assert raw.class_names == ("ant", "bee")
    assert raw.train.images_NHWC.shape == (12, 8, 8, 3)
    assert raw.train.images_NHWC[5, 0, 0].tolist() == [5, 0, 50]
    assert raw.val is not None
    assert raw.test is not None
    assert (len(raw.val.labels_N), len(raw.test.labels_N)) == (4, 6)


@needs_datasets
def test_a_single_table_is_the_training_part(tmp_path: Path) -> None:
    raw = read(tmp_path, table(12, labels=["cow", "ant", "bee"] * 4))
    assert raw.class_names == ("ant", "bee", "cow")
    assert raw.train.labels_N[:3].tolist() == [2, 0, 1]
    assert raw.test is None
    spec = DatasetSpec(kind="huggingface", path=tmp_path / "saved", val_fraction=0.4)
    assert load_dataset(spec, image_size=8, seed=0).num_classes == 3


@needs_datasets
def test_a_folder_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for name in ("a", "b"):
        (tmp_path / "images" / "train" / name).mkdir(parents=True)
        for i in range(4):
            Image.new("L", (9, 9), i).save(tmp_path / "images" / "train" / name / f"{i}.png")
    folder = tmp_path / "images"
    for spec in (DatasetSpec(kind="huggingface", path=folder), DatasetSpec(kind="huggingface", name=str(folder))):
        raw = read_huggingface(spec, 8)
        assert raw.class_names == ("a", "b")
        assert raw.train.images_NHWC.shape == (8, 8, 8, 1)


@needs_datasets
def test_a_test_split_without_labels_is_ignored(tmp_path: Path) -> None:
    import datasets

    raw = read(tmp_path, datasets.DatasetDict({"train": table(12), "test": table(4, labels=[-1] * 4)}))
    assert raw.test is None


@needs_datasets
def test_broken_images(tmp_path: Path) -> None:
    loaded = table(12)
    rows = loaded.to_dict()
    rows["image"] = [png(i) for i in range(12)]
    rows["image"][3] = {"bytes": b"no image", "path": None}
    rows["image"][4] = None
    broken = from_dict(rows, loaded.features)
    with pytest.raises(InputError, match=r"train\[3\]: .*on_broken_image: skip"):
        read(tmp_path / "x", broken)
    raw = read(tmp_path, broken, on_broken_image="skip")
    assert raw.skipped == ("train[3]", "train[4]")
    assert raw.train.labels_N.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
    assert np.array_equal(raw.train.images_NHWC[3, 0, 0], [5, 0, 50])


@needs_datasets
def test_columns_must_exist_and_hold_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dataset\.image_column.*'img'; choose from \['image', 'label'\]"):
        read(tmp_path / "x", table(6), image_column="img")
    with pytest.raises(InputError, match=r"dataset\.label_column.*'fine'"):
        read(tmp_path / "y", table(6), label_column="fine")
    with pytest.raises(InputError, match=r"a column of images, but got 'label'"):
        read(tmp_path / "z", table(6), image_column="label")


@needs_datasets
def test_missing_folder_and_missing_train_split(tmp_path: Path) -> None:
    import datasets

    with pytest.raises(InputError, match="Hugging Face datasets can load"):
        read_huggingface(DatasetSpec(kind="huggingface", path=tmp_path / "nowhere"), 8)
    with pytest.raises(InputError, match=r"a split named train, but got \['one', 'two'\]"):
        read(tmp_path, datasets.DatasetDict({"one": table(4), "two": table(4)}))


@needs_datasets
def test_rows_without_a_label_and_splits_without_an_image(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dataset\.label_column: must give every image a label"):
        read(tmp_path / "x", table(4, labels=[0, 1, None, 1]))
    loaded = table(4)
    broken = from_dict({"image": [None] * 4, "label": [0, 1, 0, 1]}, loaded.features)
    with pytest.raises(InputError, match="train: must hold at least one image that can be decoded"):
        read(tmp_path / "y", broken, on_broken_image="skip")
