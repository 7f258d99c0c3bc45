"""What a job can name, and where its code is: one line for each sampler, data set and runtime.

Names lead to ``module:function``, so that checking a job and printing its schema import none of the heavy
libraries behind them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from vitsearch.config.named import KeyOf


@dataclass(frozen=True, kw_only=True)
class DatasetKind:
    """A kind of data set.

    Attributes:
        reader: Where its ``Reader`` is.
        needs: Fields of ``DatasetSpec``, at least one of which must be given.
    """

    reader: str
    needs: tuple[str, ...] = ()


SAMPLERS: dict[str, str] = {
    "random": "vitsearch.search.samplers.random:build_random",
    "nsga2": "vitsearch.search.samplers.nsga2:build_nsga2",
    "nsga3": "vitsearch.search.samplers.nsga3:build_nsga3",
    "tpe": "vitsearch.search.samplers.tpe:build_tpe",
    "gp": "vitsearch.search.samplers.gp:build_gp",
}

DATASETS: dict[str, DatasetKind] = {
    "digits": DatasetKind(reader="vitsearch.train.data.readers.digits:read_digits"),
    "cifar10": DatasetKind(reader="vitsearch.train.data.readers.torchvision_sets:read_cifar10", needs=("path",)),
    "cifar100": DatasetKind(reader="vitsearch.train.data.readers.torchvision_sets:read_cifar100", needs=("path",)),
    "fashion_mnist": DatasetKind(
        reader="vitsearch.train.data.readers.torchvision_sets:read_fashion_mnist", needs=("path",)
    ),
    "imagefolder": DatasetKind(
        reader="vitsearch.train.data.readers.imagefolder:read_imagefolder", needs=("path",)
    ),
    "npz": DatasetKind(reader="vitsearch.train.data.readers.npz:read_npz", needs=("path",)),
    "huggingface": DatasetKind(
        reader="vitsearch.train.data.readers.huggingface:read_huggingface", needs=("path", "name")
    ),
}

RUNTIMES: dict[str, str] = {
    "pytorch": "vitsearch.profile.pytorch:prepare_pytorch",
    "onnxruntime": "vitsearch.profile.onnxruntime:prepare_onnxruntime",
}

SamplerName = Annotated[str, KeyOf(SAMPLERS)]
DatasetName = Annotated[str, KeyOf(DATASETS)]
RuntimeName = Annotated[str, KeyOf(RUNTIMES)]
