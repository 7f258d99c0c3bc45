from __future__ import annotations

import hashlib
import pickle
import struct
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100, FashionMNIST

from vitsearch.config.dataset import DatasetSpec
from vitsearch.errors import InputError
from vitsearch.train.data import READERS, load_dataset

TORCHVISION = {"cifar10": CIFAR10, "cifar100": CIFAR100, "fashion_mnist": FashionMNIST}


@pytest.mark.parametrize("kind", ["cifar10", "cifar100", "fashion_mnist"])
def test_missing_files_name_the_remedy(tmp_path: Path, kind: str) -> None:
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


CIFAR_FILES = {
    "cifar10": ("cifar-10-batches-py", {f"data_batch_{i}": 30 for i in range(1, 6)}, {"test_batch": 20}),
    "cifar100": ("cifar-100-python", {"train": 500}, {"test": 100}),
}
CIFAR_NAMES = {
    "cifar10": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    "cifar100": [f"fine class {i}" for i in range(100)],
}


def write_cifar(
    root: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Small files in the published pickle format; torchvision is told their checksums instead of the original's.

    Returns the pixels (NHWC) and labels of the train and the test part.
    """
    folder_name, *parts = CIFAR_FILES[kind]
    folder = root / folder_name
    folder.mkdir(parents=True)
    generator = np.random.default_rng(len(kind))
    expected = {}
    checksums = []
    for part, files in zip(("train", "test"), parts, strict=True):
        pixels, labels = [], []
        for name, count in files.items():
            images_NCHW = generator.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
            fine = generator.permutation(count) % len(CIFAR_NAMES[kind])
            entry = {"data": images_NCHW.reshape(count, -1), "filenames": [f"{i}.png" for i in range(count)]}
            if kind == "cifar10":
                entry["labels"] = fine.tolist()
            else:
                entry |= {"fine_labels": fine.tolist(), "coarse_labels": (fine // 5).tolist()}
            (folder / name).write_bytes(pickle.dumps(entry))
            pixels.append(images_NCHW.transpose(0, 2, 3, 1))
            labels.append(fine)
        expected[part] = np.concatenate(pixels), np.concatenate(labels)
        checksums.append([[name, md5_of(folder / name)] for name in files])
    meta = {"label_names": CIFAR_NAMES[kind]}
    if kind == "cifar100":
        meta = {"fine_label_names": CIFAR_NAMES[kind], "coarse_label_names": [f"coarse {i}" for i in range(20)]}
    dataset = TORCHVISION[kind]
    (folder / dataset.meta["filename"]).write_bytes(pickle.dumps(meta))
    monkeypatch.setattr(dataset, "train_list", checksums[0])
    monkeypatch.setattr(dataset, "test_list", checksums[1])
    checksum = md5_of(folder / dataset.meta["filename"])
    monkeypatch.setattr(dataset, "meta", {**dataset.meta, "md5": checksum})
    return expected


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder over HTTP, on a free port."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def md5_of(file: Path) -> str:
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_cifar_from_its_published_format(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = write_cifar(tmp_path, kind, monkeypatch)
    spec = DatasetSpec(kind=kind, path=tmp_path)
    raw = READERS[kind](spec, 32)
    assert raw.test is not None
    for found, (pixels_NHWC, labels_N) in zip((raw.train, raw.test), expected.values(), strict=True):
        assert found.images_NHWC.dtype == np.uint8
        assert np.array_equal(found.images_NHWC, pixels_NHWC)
        assert np.array_equal(found.labels_N, labels_N)
    assert raw.class_names == tuple(CIFAR_NAMES[kind])
    data = load_dataset(spec, image_size=32, seed=0)
    assert (data.num_classes, data.images_NHWC.shape[1:]) == (len(CIFAR_NAMES[kind]), (32, 32, 3))
    assert len(data.test) == len(expected["test"][1])
    assert np.array_equal(data.images_NHWC[data.test], expected["test"][0]), "the official test part, untouched"


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_a_damaged_cifar_batch_is_an_input_error(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar(tmp_path, kind, monkeypatch)
    folder, train, _ = CIFAR_FILES[kind]
    damaged = tmp_path / folder / next(iter(train))
    damaged.write_bytes(damaged.read_bytes()[:-50])
    with pytest.raises(InputError, match=rf"{kind} files.*corrupted"):
        READERS[kind](DatasetSpec(kind=kind, path=tmp_path), 32)


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_cifar_is_downloaded_where_the_job_allows_it(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a server on this machine; torchvision downloads, checks and unpacks it as it does the real one."""
    source, root = tmp_path / "source", tmp_path / "root"
    expected = write_cifar(source, kind, monkeypatch)
    dataset = TORCHVISION[kind]
    archive = source / dataset.filename
    with tarfile.open(archive, "w:gz") as file:
        file.add(source / CIFAR_FILES[kind][0], CIFAR_FILES[kind][0])
    monkeypatch.setattr(dataset, "tgz_md5", md5_of(archive))
    with pytest.raises(InputError, match=r"set dataset\.download: true"):
        READERS[kind](DatasetSpec(kind=kind, path=root), 32)
    with served(source) as address:
        monkeypatch.setattr(dataset, "url", f"{address}/{archive.name}")
        raw = READERS[kind](DatasetSpec(kind=kind, path=root, download=True), 32)
    assert np.array_equal(raw.train.images_NHWC, expected["train"][0])
    again = READERS[kind](DatasetSpec(kind=kind, path=root), 32)
    assert np.array_equal(again.train.labels_N, raw.train.labels_N), "the files stay for the next run"


@pytest.mark.parametrize("kind", ["cifar10", "cifar100", "fashion_mnist"])
def test_a_download_that_fails_names_the_remedy(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = (tmp_path / "nowhere").as_uri()
    monkeypatch.setattr(TORCHVISION[kind], "url", nowhere, raising=False)
    monkeypatch.setattr(TORCHVISION[kind], "mirrors", [f"{nowhere}/"], raising=False)
    with pytest.raises(InputError, match=rf"(?s){kind} files.*check the network"):
        READERS[kind](DatasetSpec(kind=kind, path=tmp_path / "root", download=True), 32)
