from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitsearch.config.dataset import DatasetSpec
from vitsearch.errors import InputError
from vitsearch.train.data import load_dataset
from vitsearch.train.data.readers import RawImages
from vitsearch.train.data.readers.imagefolder import EXTENSIONS, read_imagefolder


def draw(path: Path, colour: Any = (200, 10, 10), size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = "L" if isinstance(colour, int) else "RGB"
    Image.new(mode, size, colour).save(path)
    return path


def fill(root: Path, *classes: str, count: int = 4) -> None:
    for label, name in enumerate(classes):
        for i in range(count):
            draw(root / name / f"{i}.png", (label * 50, i, 99))


def read(root: Path, **settings: Any) -> RawImages:
    return read_imagefolder(DatasetSpec(kind="imagefolder", path=root, **settings), 8)


def test_linked_folders_are_read_like_others(tmp_path: Path) -> None:
    fill(tmp_path / "root", "cat", "dog")
    draw(tmp_path / "more" / "4.png")
    (tmp_path / "root" / "cat" / "more").symlink_to(tmp_path / "more")
    (tmp_path / "root" / "cat" / "back").symlink_to(tmp_path / "root")
    assert read(tmp_path / "root").train.labels_N.tolist() == [0] * 5 + [1] * 4


def test_classes_are_the_sorted_folders(tmp_path: Path) -> None:
    fill(tmp_path, "dog", "cat")
    raw = read(tmp_path)
    assert raw.class_names == ("cat", "dog")
    assert raw.train.labels_N.tolist() == [0] * 4 + [1] * 4
    assert raw.train.images_NHWC[0, 0, 0].tolist() == [50, 0, 99]  # cat was drawn second
    assert raw.test is None


def test_every_extension_in_either_case(tmp_path: Path) -> None:
    for i, extension in enumerate(EXTENSIONS):
        draw(tmp_path / "a" / f"{i}{extension}", 7)
        draw(tmp_path / "b" / f"{i}{extension.upper()}", 7)
    raw = read(tmp_path)
    assert raw.train.images_NHWC.shape == (2 * len(EXTENSIONS), 8, 8, 1)
    assert np.abs(raw.train.images_NHWC.astype(int) - 7).max() <= 1


def test_hidden_and_foreign_files_are_ignored(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b")
    draw(tmp_path / ".thumbnails" / "1.png")
    draw(tmp_path / "a" / ".cache" / "1.png")
    draw(tmp_path / "a" / ".hidden.png")
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "b" / "Thumbs.db").write_bytes(b"no image")
    draw(tmp_path / "loose.png")
    (tmp_path / "b" / "folder.png").mkdir()
    raw = read(tmp_path)
    assert raw.class_names == ("a", "b")
    assert len(raw.train.labels_N) == 8


def test_folders_inside_a_class_belong_to_it(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b")
    draw(tmp_path / "b" / "more" / "deep" / "1.png")
    assert read(tmp_path).train.labels_N.tolist() == [0] * 4 + [1] * 5


@pytest.mark.parametrize(
    ("folders", "val", "test"),
    [
        (("train",), False, False),
        (("train", "test"), False, True),
        (("train", "val"), True, False),
        (("train", "valid", "test"), True, True),
        (("train", "validation", "docs"), True, False),
    ],
)
def test_own_parts(tmp_path: Path, folders: tuple[str, ...], val: bool, test: bool) -> None:
    for name in folders:
        fill(tmp_path / name, "a", "b", count=10 if name == "train" else 2)
    raw = read(tmp_path)
    assert raw.class_names == ("a", "b")
    assert len(raw.train.labels_N) == 20
    assert (raw.val is not None, raw.test is not None) == (val, test)
    data = load_dataset(DatasetSpec(kind="imagefolder", path=tmp_path), image_size=8, seed=0)
    assert len(data.test) == 4
    assert len(data.train) + len(data.val) + len(data.test) == 20 + 4 * (val + test)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    fill(tmp_path, "train", "bus", "car")
    assert read(tmp_path).class_names == ("bus", "car", "train")


def test_all_grey_is_one_channel_and_a_mix_is_three(tmp_path: Path) -> None:
    for i in range(10):
        draw(tmp_path / "a" / f"{i}.png", i)
        draw(tmp_path / "b" / f"{i}.png", 100 + i)
    spec = DatasetSpec(kind="imagefolder", path=tmp_path)
    assert load_dataset(spec, image_size=8, seed=0).in_chans == 1
    assert load_dataset(spec.model_copy(update={"in_chans": 3}), image_size=8, seed=0).in_chans == 3
    draw(tmp_path / "b" / "colour.png")
    mixed = load_dataset(spec, image_size=8, seed=0)
    assert mixed.in_chans == 3
    assert mixed.images_NHWC[3, 0, 0].tolist() == [3, 3, 3]
    luminance = load_dataset(spec.model_copy(update={"in_chans": 1}), image_size=8, seed=0)
    assert luminance.in_chans == 1
    assert 67 in luminance.images_NHWC  # 0.299 * 200 + 0.587 * 10 + 0.114 * 10 = 66.8


def break_some(root: Path) -> list[str]:
    """Add one file of each kind of damage; their relative names, sorted."""
    (root / "a" / "empty.png").touch()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / "b" / "cut.jpg")
    whole = (root / "b" / "cut.jpg").read_bytes()
    (root / "b" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "b" / "dangling.png").symlink_to(root / "nowhere.png")
    return ["a/empty.png", "b/cut.jpg", "b/dangling.png"]


def test_broken_files_are_skipped_and_named(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b", count=10)
    names = break_some(tmp_path)
    raw = read(tmp_path, on_broken_image="skip")
    assert list(raw.skipped) == names
    assert raw.train.labels_N.tolist() == [0] * 10 + [1] * 10
    spec = DatasetSpec(kind="imagefolder", path=tmp_path, on_broken_image="skip")
    assert list(load_dataset(spec, image_size=8, seed=0).skipped) == names


def test_a_broken_file_stops_by_default(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b", count=10)
    break_some(tmp_path)
    with pytest.raises(InputError, match=r"on_broken_image: skip") as caught:
        read(tmp_path)
    assert caught.value.where == str(tmp_path / "a" / "empty.png")


def test_a_class_with_broken_files_only_is_too_small(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b", count=10)
    for i in range(3):
        draw(tmp_path / "c" / f"{i}.png").write_bytes(b"")
    spec = DatasetSpec(kind="imagefolder", path=tmp_path, on_broken_image="skip")
    with pytest.raises(InputError, match=r"at least 3 training images per class, but got \{'c': 0\}"):
        load_dataset(spec, image_size=8, seed=0)


def test_all_files_broken(tmp_path: Path) -> None:
    for name in ("a", "b"):
        draw(tmp_path / name / "1.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"at least one image that can be decoded, but got '2 broken files'"):
        read(tmp_path, on_broken_image="skip")


def test_missing_folder_file_and_empty_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", draw(tmp_path / "file.png")):
        with pytest.raises(InputError, match=r"dataset\.path: must be a folder"):
            read(path)
    with pytest.raises(InputError, match="one sub-folder of images for each class"):
        read(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match=r"at least one image in a class folder; use one of the extensions \.png"):
        read(tmp_path)


def test_one_class_only(tmp_path: Path) -> None:
    fill(tmp_path, "a", count=10)
    with pytest.raises(InputError, match="at least two classes"):
        load_dataset(DatasetSpec(kind="imagefolder", path=tmp_path), image_size=8, seed=0)


def test_a_test_class_that_is_never_trained(tmp_path: Path) -> None:
    fill(tmp_path / "train", "a", "b")
    fill(tmp_path / "test", "a", "c")
    with pytest.raises(InputError, match=r"only the classes of the training images.*but got \['c'\]"):
        read(tmp_path)


def test_an_empty_test_folder(tmp_path: Path) -> None:
    fill(tmp_path / "train", "a", "b")
    (tmp_path / "test").mkdir()
    with pytest.raises(InputError, match=r"test: must hold at least one image"):
        read(tmp_path)


def test_names_with_spaces_and_other_scripts(tmp_path: Path) -> None:
    fill(tmp_path, "große Katze", "犬")
    assert read(tmp_path).class_names == ("große Katze", "犬")
