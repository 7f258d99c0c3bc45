"""What a job can name, and where its code is: one line for each sampler, data set and runtime.

Names lead to ``module:function``, so that checking a job and printing its schema import none of the heavy
libraries behind them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from vitsearch.config.named import KeyOf


@dataclass(frozen=True, kw_only=True)
class SamplerKind:
    """A kind of sampler.

    Attributes:
        build: Where its ``SamplerFactory`` is.
        learns: Whether earlier trials steer it.
        max_objectives: The most it takes; None without limit.
        view: Finished trials that it looks at beside the front, the latest ones; None for all.
        has_population: Whether it asks in generations, and reads ``search.population``.
    """

    build: str
    learns: bool = True
    max_objectives: int | None = None
    view: int | None = None
    has_population: bool = False

    def admits(self, num_objectives: int) -> bool:
        """Whether it takes that many objectives."""
        return self.max_objectives is None or num_objectives <= self.max_objectives


@dataclass(frozen=True, kw_only=True)
class DatasetKind:
    """A kind of data set.

    Attributes:
        reader: Where its ``Reader`` is.
        needs: Fields of ``DatasetSpec``, at least one of which must be given.
        reads: Others that not every kind reads, and this one does.
    """

    reader: str
    needs: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()


SAMPLERS: dict[str, SamplerKind] = {
    "random": SamplerKind(build="vitsearch.search.samplers.random:build_random", learns=False),
    "nsga2": SamplerKind(build="vitsearch.search.samplers.nsga2:build_nsga2", has_population=True),
    "nsga3": SamplerKind(build="vitsearch.search.samplers.nsga3:build_nsga3", has_population=True),
    # Each ask compares all that it looks at with each other.
    "tpe": SamplerKind(build="vitsearch.search.samplers.tpe:build_tpe", view=500),
    # Expected hypervolume improvement in more dimensions: 5 s an ask in four, 13 s in five, 13 GB in nine.
    "gp": SamplerKind(build="vitsearch.search.samplers.gp:build_gp", max_objectives=3, view=200),
}

DATASETS: dict[str, DatasetKind] = {
    "digits": DatasetKind(reader="vitsearch.train.data.readers.digits:read_digits"),
    "cifar10": DatasetKind(
        reader="vitsearch.train.data.readers.torchvision_sets:read_cifar10", needs=("path",),
        reads=("download",),
    ),
    "cifar100": DatasetKind(
        reader="vitsearch.train.data.readers.torchvision_sets:read_cifar100", needs=("path",),
        reads=("download",),
    ),
    "fashion_mnist": DatasetKind(
        reader="vitsearch.train.data.readers.torchvision_sets:read_fashion_mnist", needs=("path",),
        reads=("download",),
    ),
    "imagefolder": DatasetKind(
        reader="vitsearch.train.data.readers.imagefolder:read_imagefolder", needs=("path",),
        reads=("on_broken_image",),
    ),
    "npz": DatasetKind(reader="vitsearch.train.data.readers.npz:read_npz", needs=("path",)),
    "huggingface": DatasetKind(
        reader="vitsearch.train.data.readers.huggingface:read_huggingface", needs=("path", "name"),
        reads=("on_broken_image", "image_column", "label_column"),
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RuntimeKind:
    """A way to execute a trained model.

    Attributes:
        load: Where its ``Runtime`` is.
        file: What it loads, a name in ``FILES``.
        library: The package that executes, a name in ``LIBRARIES``.
        bits: The bits of weights and activations that it executes; None where it computes in floating point, which
            every candidate can be, with its bits simulated.
        own_arithmetic: Whether its answers differ from those the trial was scored by, so that its accuracy is
            measured too.
        devices: What it computes on.
    """

    load: str
    file: str
    library: str
    bits: int | None = None
    own_arithmetic: bool = False
    devices: tuple[str, ...] = ("cpu",)


@dataclass(frozen=True, kw_only=True)
class LibraryKind:
    """A package that executes models.

    Attributes:
        module: What is imported.
        precisions: Number formats that it takes.
        install: What installs it.
    """

    module: str
    precisions: tuple[str, ...]
    install: str


RUNTIMES: dict[str, RuntimeKind] = {
    "pytorch": RuntimeKind(
        load="vitsearch.profile.pytorch:load_eager", file="weights", library="pytorch", devices=("cpu", "cuda")
    ),
    "pytorch_bf16": RuntimeKind(
        load="vitsearch.profile.pytorch:load_eager_bf16", file="weights", library="pytorch", own_arithmetic=True,
        devices=("cpu", "cuda"),
    ),
    "pytorch_compiled": RuntimeKind(
        load="vitsearch.profile.pytorch:load_compiled", file="weights", library="pytorch", devices=("cpu", "cuda")
    ),
    "onnxruntime": RuntimeKind(
        load="vitsearch.profile.onnxruntime:load_float", file="onnx", library="onnxruntime",
        devices=("cpu", "cuda"),
    ),
    "onnxruntime_int8_dynamic": RuntimeKind(
        load="vitsearch.profile.onnxruntime:load_int8", file="onnx_int8_dynamic", library="onnxruntime", bits=8,
        own_arithmetic=True,
    ),
    "onnxruntime_int8_qdq": RuntimeKind(
        load="vitsearch.profile.onnxruntime:load_int8", file="onnx_int8_qdq", library="onnxruntime", bits=8,
        own_arithmetic=True,
    ),
    "openvino": RuntimeKind(load="vitsearch.profile.openvino:load_openvino", file="onnx", library="openvino"),
    "tensorrt": RuntimeKind(
        load="vitsearch.profile.tensorrt:load_tensorrt", file="onnx", library="tensorrt", devices=("cuda",)
    ),
}  # fmt: skip

LIBRARIES: dict[str, LibraryKind] = {
    "pytorch": LibraryKind(module="torch", precisions=("float32", "bfloat16"), install="torch"),
    "onnxruntime": LibraryKind(module="onnxruntime", precisions=("float32", "int8"), install="onnxruntime"),
    "openvino": LibraryKind(module="openvino", precisions=("float32", "int8"), install="'vitsearch[openvino]'"),
    "tensorrt": LibraryKind(module="tensorrt", precisions=("float32", "float16", "int8"), install="tensorrt"),
}

FILES: dict[str, str] = {
    "weights": "vitsearch.profile.files:weights_file",
    "onnx": "vitsearch.profile.files:onnx_file",
    "onnx_int8_dynamic": "vitsearch.profile.int8:dynamic_int8_file",
    "onnx_int8_qdq": "vitsearch.profile.int8:qdq_int8_file",
}

DISTILLERS: dict[str, str] = {
    "soft": "vitsearch.train.distill.losses:soft",
    "hard": "vitsearch.train.distill.losses:hard",
    "deit": "vitsearch.train.distill.losses:deit",
    "co_advise": "vitsearch.train.distill.losses:co_advise",
    "combined": "vitsearch.train.distill.losses:combined",
}

INNER_DISTILLERS: dict[str, str] = {
    "tokens": "vitsearch.train.distill.inner:tokens",
    "manifold": "vitsearch.train.distill.inner:manifold",
    "minivit": "vitsearch.train.distill.inner:minivit",
}

SELF_DISTILLER = "smkd"  # the one that has no other network for a teacher; vitsearch.train.distill.masked

SamplerName = Annotated[str, KeyOf(SAMPLERS)]
DatasetName = Annotated[str, KeyOf(DATASETS)]
RuntimeName = Annotated[str, KeyOf(RUNTIMES)]
DistillerName = Annotated[str, KeyOf(DISTILLERS, ("none",))]
InnerDistillerName = Annotated[str, KeyOf(INNER_DISTILLERS, ("none", SELF_DISTILLER))]
DistillTermName = Annotated[str, KeyOf(INNER_DISTILLERS, ("labels", "soft", "hard", SELF_DISTILLER))]
