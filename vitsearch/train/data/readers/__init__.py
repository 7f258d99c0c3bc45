"""One reader per data set kind."""

from __future__ import annotations

from vitsearch.config.dataset import DatasetKind
from vitsearch.train.data.readers.digits import read_digits
from vitsearch.train.data.readers.huggingface import read_huggingface
from vitsearch.train.data.readers.imagefolder import read_imagefolder
from vitsearch.train.data.readers.npz import read_npz
from vitsearch.train.data.readers.raw import RawImages, RawPart, Reader
from vitsearch.train.data.readers.torchvision_sets import read_cifar10, read_cifar100, read_fashion_mnist

READERS: dict[DatasetKind, Reader] = {
    "digits": read_digits,
    "cifar10": read_cifar10,
    "cifar100": read_cifar100,
    "fashion_mnist": read_fashion_mnist,
    "imagefolder": read_imagefolder,
    "npz": read_npz,
    "huggingface": read_huggingface,
}

__all__ = ["READERS", "RawImages", "RawPart", "Reader"]
