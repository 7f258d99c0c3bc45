"""What ``vitsearch doctor`` looks at: each check does a small piece of the real work and says what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vitsearch.cli import probes


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One thing to try.

    Attributes:
        attempt: Tries it and says what it found; raises where it does not work.
        remedy: What to do then.
        optional: Whether vitsearch works without it.
    """

    attempt: Callable[[], str]
    remedy: str
    optional: bool = False


@dataclass(frozen=True, kw_only=True)
class Check:
    """One finding.

    Attributes:
        name: What was looked at.
        ok: Whether it works.
        detail: What was found.
        remedy: What to do; empty where it works.
        optional: Whether vitsearch works without it.
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    optional: bool = False


PROBES: dict[str, Probe] = {
    "python": Probe(attempt=probes.python, remedy="install Python 3.11 or newer"),
    "torch": Probe(attempt=probes.train_a_step, remedy="pip install --force-reinstall torch"),
    "timm": Probe(attempt=probes.timm_optimizer, remedy="pip install --force-reinstall timm"),
    "ray": Probe(
        attempt=probes.ray_task,
        remedy="pip install --force-reinstall ray; if RAY_ADDRESS is set, check that cluster or unset it",
    ),
    "optuna": Probe(attempt=probes.samplers, remedy="pip install --force-reinstall optuna"),
    "mlflow": Probe(
        attempt=probes.mlflow_run,
        remedy="pip install --force-reinstall mlflow, or search without it: tracking: {enabled: false}",
    ),
    "onnxruntime": Probe(
        attempt=probes.onnx_file, remedy="pip install --force-reinstall onnx onnxscript onnxruntime"
    ),
    "database": Probe(
        attempt=probes.database, remedy="keep runs on a local disk (SQLite needs its locks), or set storage.url"
    ),
    "memory and disk": Probe(attempt=probes.room, remedy="free some, or work in a folder on a larger disk"),
    "fetched files": Probe(
        attempt=probes.fetched_files, remedy="set VITSEARCH_CACHE to a folder that can be written", optional=True
    ),
    "accelerator": Probe(
        attempt=probes.accelerator,
        remedy="nothing to do without a GPU: training runs on the processor",
        optional=True,
    ),
    "bf16 on the processor": Probe(attempt=probes.bf16, remedy="nothing to do: float32 is used", optional=True),
    "hugging face data sets": Probe(
        attempt=probes.hugging_face, remedy="pip install 'vitsearch[huggingface]'", optional=True
    ),
    "postgresql driver": Probe(attempt=probes.postgres, remedy="pip install 'vitsearch[postgres]'", optional=True),
}


def run_checks() -> Iterator[Check]:
    """All checks, most basic first, each when it is done."""
    for name, probe in PROBES.items():
        yield _try(name, probe)


def _try(name: str, probe: Probe) -> Check:
    try:
        return Check(name=name, ok=True, detail=probe.attempt(), optional=probe.optional)
    except Exception as error:  # noqa: BLE001 - a broken installation can fail in any way
        detail = f"{type(error).__name__}: {str(error).strip() or 'no reason given'}".splitlines()[0]
        return Check(name=name, ok=False, detail=detail, remedy=probe.remedy, optional=probe.optional)
