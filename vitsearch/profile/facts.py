"""What a machine can measure: its processor, its runtimes and the arithmetic they execute."""

from __future__ import annotations

import platform
import sys
from functools import cache
from importlib import import_module, metadata, util
from pathlib import Path

import psutil

from vitsearch.config import LIBRARIES, RUNTIMES, LibraryKind
from vitsearch.messages import MachineFacts, RuntimeFacts
from vitsearch.profile.power import energy_meter

PROCESSORS = Path("/proc/cpuinfo")
BOARD = Path("/proc/device-tree/model")
ARM_NUMBERS = ("CPU implementer", "CPU variant", "CPU part")


@cache
def machine_facts() -> MachineFacts:
    """The machine of this process."""
    found = {name: _facts(kind) for name, kind in LIBRARIES.items()}
    gpus = _gpus()
    meters = {device: energy_meter(device) for device in ("cpu", *(["cuda"] if gpus else []))}
    return MachineFacts(
        host=platform.node(),
        processor=processor_name(),
        num_processors=psutil.cpu_count() or 1,
        memory_mb=psutil.virtual_memory().total / 1e6,
        python=platform.python_version(),
        architecture=platform.machine(),
        gpus=gpus,
        runtimes={name: facts for name, facts in found.items() if facts is not None},
        missing=tuple(name for name, facts in found.items() if facts is None),
        energy={device: meter.name for device, meter in meters.items() if meter is not None},
    )


def is_installed(library: str) -> bool:
    """Whether this process could import a library of ``LIBRARIES``."""
    return util.find_spec(LIBRARIES[library].module) is not None


def runtime_name(runtime: str) -> str:
    """A runtime of ``RUNTIMES`` with the version of its library here: ``onnxruntime 1.31.1``."""
    return f"{runtime} {_version(LIBRARIES[RUNTIMES[runtime].library].module)}"


def device_name(device: str) -> str:
    """What computes, as its maker calls it: ``cpu`` is the processor, ``cuda`` the first GPU."""
    return _gpus()[0] if device == "cuda" else processor_name()


def processor_name() -> str:
    """What the operating system calls the processor."""
    name = platform.processor() or platform.machine()
    if sys.platform == "linux":
        lines = PROCESSORS.read_text(encoding="utf-8").splitlines()
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
        if BOARD.is_file():  # processors of other architectures have no names of their own there
            return BOARD.read_text(encoding="utf-8", errors="replace").strip("\x00\n ")
        name = " ".join([name, *_kinds_of_cores(lines)])  # servers have no such file either
    return name


def _kinds_of_cores(lines: list[str]) -> list[str]:
    """The numbers that ARM gives to makers and kinds of the cores listed, each kind once: ``0x41/0x3/0xd0c``."""
    kinds, core = set(), dict[str, str]()
    for line in lines:
        key, _, value = line.partition(":")
        core[key.strip()] = value.strip()
        if key.strip() == "CPU part":  # the last of the three
            kinds.add("/".join(core.get(name, "?") for name in ARM_NUMBERS))
    return sorted(kinds)


def _facts(kind: LibraryKind) -> RuntimeFacts | None:
    if util.find_spec(kind.module) is None:
        return None
    return RuntimeFacts(version=_version(kind.module), precisions=kind.precisions, emulated=_emulated(kind.module))


def _version(module: str) -> str:
    try:
        return metadata.version(module)
    except metadata.PackageNotFoundError:  # a build of another name, such as onnxruntime-gpu
        return str(import_module(module).__version__)


def _emulated(module: str) -> tuple[str, ...]:
    """Number formats that the runtime takes and the processor has no instructions for."""
    if module != "torch" or platform.machine() not in {"x86_64", "AMD64"}:
        return ()
    import torch

    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # noqa: SLF001
    return () if has_bf16 else ("bfloat16",)


def _gpus() -> tuple[str, ...]:
    if util.find_spec("torch") is None:
        return ()
    import torch

    return tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
