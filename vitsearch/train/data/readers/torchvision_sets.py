"""CIFAR-10, CIFAR-100 and Fashion-MNIST through torchvision, with their official test parts."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from vitsearch.config.dataset import DatasetSpec
from vitsearch.errors import InputError
from vitsearch.train.data.readers.raw import RawImages, RawPart


def read_cifar10(spec: DatasetSpec, _image_size: int, /) -> RawImages:
    """Read CIFAR-10 (Krizhevsky, 2009).

    Raises:
        InputError: It is not below ``spec.path``, or broken.
    """
    from torchvision.datasets import CIFAR10

    return _read(CIFAR10, spec)


def read_cifar100(spec: DatasetSpec, _image_size: int, /) -> RawImages:
    """Read CIFAR-100 with its 100 fine classes (Krizhevsky, 2009).

    Raises:
        InputError: It is not below ``spec.path``, or broken.
    """
    from torchvision.datasets import CIFAR100

    return _read(CIFAR100, spec)


def read_fashion_mnist(spec: DatasetSpec, _image_size: int, /) -> RawImages:
    """Read Fashion-MNIST (Xiao et al., 2017).

    Raises:
        InputError: It is not below ``spec.path``, or broken.
    """
    from torchvision.datasets import FashionMNIST

    return _read(FashionMNIST, spec)


def _read(dataset_class: Any, spec: DatasetSpec) -> RawImages:  # torchvision is untyped
    train, names = _part(dataset_class, spec, train=True)
    test, _ = _part(dataset_class, spec, train=False)
    return RawImages(train=train, test=test, class_names=names)


def _part(dataset_class: Any, spec: DatasetSpec, *, train: bool) -> tuple[RawPart, tuple[str, ...]]:
    try:
        with warnings.catch_warnings():
            # The published pickles and archives predate rules of current numpy and tarfile.
            warnings.simplefilter("ignore")
            dataset = dataset_class(root=spec.path, train=train, download=spec.download)
    except (OSError, RuntimeError, ValueError, AssertionError, LookupError, EOFError) as error:
        remedy = (
            "check the network and the free space, or remove the folder and try again"
            if spec.download
            else "set dataset.download: true, or correct dataset.path"
        )
        raise InputError(
            rule=f"must hold the {spec.kind} files as torchvision stores them ({error})",
            where=str(spec.path),
            field="dataset.path",
            remedy=remedy,
        ) from error
    images = np.asarray(dataset.data)
    images_NHWC = images if images.ndim == 4 else images[..., None]
    labels_N = np.asarray(dataset.targets).astype(np.int64)
    return RawPart(images_NHWC=images_NHWC, labels_N=labels_N), tuple(dataset.classes)
