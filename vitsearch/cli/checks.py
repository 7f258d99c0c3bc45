"""What ``vitsearch doctor`` looks at. Each check tries the thing itself."""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Check:
    """One finding.

    Attributes:
        name: What was looked at.
        ok: Whether it works.
        detail: What was found, or what to do.
        optional: Whether vitsearch works without it.
    """

    name: str
    ok: bool
    detail: str
    optional: bool = False


def run_checks() -> list[Check]:
    """All checks, most basic first."""
    required: dict[str, Callable[[], str]] = {
        "python": lambda: f"{platform.python_version()} on {platform.platform()}",
        "torch": _torch,
        "timm": lambda: _version("timm"),
        "ray": _ray,
        "optuna": lambda: _version("optuna"),
        "mlflow": lambda: _version("mlflow"),
        "onnxruntime": _onnxruntime,
        "database": _database,
        "memory and disk": _room,
    }
    optional: dict[str, Callable[[], str]] = {
        "accelerator": _accelerator,
        "bf16 on the processor": _bf16,
        "hugging face data sets": lambda: _version("datasets"),
        "postgresql driver": lambda: _version("psycopg"),
    }
    return [_try(name, check, optional=False) for name, check in required.items()] + [
        _try(name, check, optional=True) for name, check in optional.items()
    ]


def _try(name: str, check: Callable[[], str], *, optional: bool) -> Check:
    try:
        return Check(name=name, ok=True, detail=check(), optional=optional)
    except Exception as error:  # noqa: BLE001 - a broken installation can fail in any way
        return Check(name=name, ok=False, detail=f"{type(error).__name__}: {error}", optional=optional)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        raise RuntimeError(f"{package} is not installed") from None


def _torch() -> str:
    import torch

    product = torch.ones(4, 4) @ torch.ones(4, 4)
    assert float(product.sum()) == 64
    return f"{torch.__version__}, {torch.get_num_threads()} threads"


def _ray() -> str:
    import ray

    return f"{ray.__version__}"


def _onnxruntime() -> str:
    import onnxruntime

    return f"{onnxruntime.__version__}, {', '.join(onnxruntime.get_available_providers())}"


def _database() -> str:
    from vitsearch.storage import database_url, open_engine

    with tempfile.TemporaryDirectory() as folder:
        engine = open_engine(database_url(Path(folder)))
        engine.dispose()
    return "SQLite opens and migrates"


def _room() -> str:
    import psutil

    free = shutil.disk_usage(Path.cwd()).free
    available = psutil.virtual_memory().available
    if min(free, available) < 1e9:
        raise RuntimeError(f"less than 1 GB left: disk {free / 1e9:.1f} GB, memory {available / 1e9:.1f} GB")
    return f"{available / 1e9:.0f} GB memory, {free / 1e9:.0f} GB disk, {psutil.cpu_count()} processors"


def _accelerator() -> str:
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("no CUDA device; training runs on the processor")
    return str(torch.cuda.get_device_name())


def _bf16() -> str:
    import torch

    from vitsearch.train.autocast import executes_bf16

    if not executes_bf16(torch.device("cpu")):
        raise RuntimeError("this processor does not compute in bfloat16; float32 is used")
    return "executed natively; each study measures whether it is faster"
