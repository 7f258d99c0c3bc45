from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from vitsearch.config.dataset import DatasetKind, DatasetSpec
from vitsearch.errors import InputError
from vitsearch.train.data import READERS, load_dataset


@pytest.mark.parametrize("kind", ["cifar10", "cifar100", "fashion_mnist"])
def test_missing_files_name_the_remedy(tmp_path: Path, kind: DatasetKind) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=rf"{kind} files.*set dataset\.download: true") as caught:
            READERS[kind](DatasetSpec(kind=kind, path=path), 32)
        assert caught.value.where == str(path)
        assert not (tmp_path / "nowhere").exists()


def write_fashion_mnist(root: Path) -> dict[str, np.ndarray]:
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    images = {}
    for name, count in (("train", 60), ("t10k", 20)):
        images[name] = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        header = struct.pack(">IIII", 0x803, count, 28, 28)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(header + images[name].tobytes())
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels.tobytes())
    return images


def test_fashion_mnist_from_its_published_format(tmp_path: Path) -> None:
    images = write_fashion_mnist(tmp_path)
    spec = DatasetSpec(kind="fashion_mnist", path=tmp_path)
    raw = READERS["fashion_mnist"](spec, 28)
    assert np.array_equal(raw.train.images_NHWC[..., 0], images["train"])
    assert raw.test is not None
    assert np.array_equal(raw.test.images_NHWC[..., 0], images["t10k"])
    assert raw.train.labels_N.tolist() == [*range(10)] * 6
    assert raw.class_names[9] == "Ankle boot"
    data = load_dataset(spec, image_size=32, seed=0)
    assert data.images_NHWC.shape == (80, 32, 32, 1)
    assert (len(data.train), len(data.val), len(data.test)) == (48, 12, 20)


def test_a_damaged_file_is_an_input_error(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path)
    damaged = tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    damaged.write_bytes(damaged.read_bytes()[:5000])
    with pytest.raises(InputError, match="fashion_mnist files"):
        READERS["fashion_mnist"](DatasetSpec(kind="fashion_mnist", path=tmp_path), 28)
