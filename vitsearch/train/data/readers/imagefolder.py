"""One sub-folder per class, optionally below ``train/``, ``val/`` and ``test/``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from vitsearch.config.dataset import DatasetSpec
from vitsearch.config.paths import files_below
from vitsearch.errors import InputError
from vitsearch.train.data.readers.decoding import Encoded, decode_all
from vitsearch.train.data.readers.raw import RawImages, RawPart

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
VAL_FOLDERS = ("val", "valid", "validation")
TEST_FOLDERS = ("test",)


def read_imagefolder(spec: DatasetSpec, image_size: int, /) -> RawImages:
    """Read image files whose class is the name of a folder.

    Two layouts are understood::

        path/cat/1.png                 path/train/cat/1.png
        path/dog/2.jpg                 path/val/dog/2.jpg     (or valid/, validation/; optional)
                                       path/test/dog/3.jpg    (optional)

    The second is assumed where ``train/`` stands beside one of the others, or alone with folders inside. Its
    ``val/`` is used for validation and its ``test/`` for the final figures; whichever is missing is carved out of
    ``train/``. The classes are the folders of ``train/``, in alphabetical order. Folders inside a class folder
    belong to the class. Hidden files and folders, and files without one of ``EXTENSIONS``, are ignored.

    Raises:
        InputError: There is no folder, class or image, or ``on_broken_image`` is ``error`` and a file is broken.
    """
    root = spec.path
    assert isinstance(root, Path), "DatasetSpec demands it, and load_dataset fetches addresses"
    if not root.is_dir():
        raise InputError("must be a folder", where=str(root), field="dataset.path", remedy="correct it")
    folders = _part_folders(root)
    names = tuple(_sub_folders(folders["train"]))
    if not names:
        raise InputError(
            rule="must hold one sub-folder of images for each class",
            where=str(folders["train"]),
            remedy="arrange the files as <class>/<image>",
        )
    parts: dict[str, RawPart] = {}
    skipped: list[str] = []
    for part, folder in folders.items():
        parts[part], broken = _read_part(folder, names, spec, image_size)
        skipped += broken
    return RawImages(
        train=parts["train"],
        val=parts.get("val"),
        test=parts.get("test"),
        class_names=names,
        skipped=tuple(skipped),
    )


def _part_folders(root: Path) -> dict[str, Path]:
    folders = _sub_folders(root)
    if "train" not in folders:
        return {"train": root}
    found = {"train": folders["train"]}
    for part, spellings in (("val", VAL_FOLDERS), ("test", TEST_FOLDERS)):
        for name in spellings:
            if name in folders:
                found.setdefault(part, folders[name])
    alone = len(folders) == 1 and _sub_folders(folders["train"])
    return found if len(found) > 1 or alone else {"train": root}


def _sub_folders(folder: Path) -> dict[str, Path]:
    found = {path.name: path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
    return dict(sorted(found.items()))


def _read_part(
    folder: Path, names: tuple[str, ...], spec: DatasetSpec, image_size: int
) -> tuple[RawPart, tuple[str, ...]]:
    root = spec.path
    assert isinstance(root, Path)
    unknown = sorted(set(_sub_folders(folder)) - set(names))
    if unknown:
        raise InputError(
            rule=f"must hold only the classes of the training images {list(names)}",
            where=str(folder),
            value=unknown,
            remedy="remove these folders or add training images",
        )
    sources: list[Encoded] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        for path in _image_files(folder / name):
            short = path.relative_to(root).as_posix()
            sources.append(Encoded(where=str(path), short_name=short, open=partial(Path, path)))
            labels.append(label)
    if not sources:
        raise InputError(
            rule="must hold at least one image in a class folder",
            where=str(folder),
            remedy=f"use one of the extensions {' '.join(EXTENSIONS)}",
        )
    images_NHWC, kept, skipped = decode_all(sources, image_size=image_size, on_broken_image=spec.on_broken_image)
    if not len(kept):
        raise InputError(
            rule="must hold at least one image that can be decoded",
            where=str(folder),
            value=f"{len(skipped)} broken files",
            remedy="replace them",
        )
    return RawPart(images_NHWC=images_NHWC, labels_N=np.array(labels, dtype=np.int64)[kept]), skipped


def _image_files(folder: Path) -> list[Path]:
    """Sorted by relative path; a dangling link counts as a (broken) file."""
    found = [
        (path.relative_to(folder).parts, path) for path in files_below(folder) if path.suffix.lower() in EXTENSIONS
    ]
    return [path for parts, path in sorted(found) if not any(part.startswith(".") for part in parts)]
