"""What a machine can measure: its processor, its runtimes and the arithmetic they execute."""

from __future__ import annotations

import platform
from importlib import metadata

import psutil

from vitsearch.messages import MachineFacts, RuntimeFacts
from vitsearch.profile.measure import processor_name


def machine_facts() -> MachineFacts:
    """The machine of this process."""
    found = {
        "pytorch": _library("torch", ("float32", "bfloat16")),
        "onnxruntime": _library("onnxruntime", ("float32", "int8")),
        "openvino": _library("openvino", ("float32", "int8")),
        "tensorrt": _library("tensorrt", ("float32", "float16", "int8")),
    }
    return MachineFacts(
        host=platform.node(),
        processor=processor_name(),
        num_processors=psutil.cpu_count() or 1,
        memory_mb=psutil.virtual_memory().total / 1e6,
        python=platform.python_version(),
        gpus=_gpus(),
        runtimes={name: facts for name, facts in found.items() if facts is not None},
        missing=tuple(name for name, facts in found.items() if facts is None),
    )


def _library(name: str, precisions: tuple[str, ...]) -> RuntimeFacts | None:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
    return RuntimeFacts(version=version, precisions=precisions, emulated=_emulated(name))


def _emulated(name: str) -> tuple[str, ...]:
    """Number formats that the runtime takes and the processor has no instructions for."""
    if name != "torch" or platform.machine() not in {"x86_64", "AMD64"}:
        return ()
    import torch

    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # noqa: SLF001
    return () if has_bf16 else ("bfloat16",)


def _gpus() -> tuple[str, ...]:
    import torch

    return tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
