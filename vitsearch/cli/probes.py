"""Small pieces of real work, one for each thing that a search needs; each says in a line what it found."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from vitsearch.candidate import Architecture
    from vitsearch.config import JobSpec

MIN_FREE_BYTES = 1_000_000_000


def python() -> str:
    """This interpreter runs."""
    return f"{platform.python_version()} on {platform.platform()}"


def train_a_step() -> str:
    """One training step of a small network lowers its loss."""
    import torch

    from vitsearch.models import build_dense

    torch.manual_seed(0)
    model = build_dense(_architecture())
    images_BCHW, labels_B = torch.randn(4, 1, 8, 8), torch.arange(4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for _ in range(2):
        loss = torch.nn.functional.cross_entropy(model(images_BCHW), labels_B)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    if not losses[1] < losses[0]:
        raise RuntimeError(f"a training step took the loss from {losses[0]:.4g} to {losses[1]:.4g}")
    return f"{torch.__version__} trains, {torch.get_num_threads()} threads"


def timm_optimizer() -> str:
    """The optimiser of the default recipe takes a step."""
    import torch
    from timm.optim import create_optimizer_v2

    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = create_optimizer_v2([parameter], opt="adamw", lr=0.1)
    parameter.square().sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    if not bool((parameter < 1).all()):
        raise RuntimeError("a step of AdamW moved nothing")
    return f"{metadata.version('timm')}, AdamW steps"


def ray_task() -> str:
    """A Ray like a search's starts, and a process of its own answers."""
    import ray

    from workers import local_ray

    where = "the cluster of RAY_ADDRESS" if os.environ.get("RAY_ADDRESS") else "a Ray of its own"
    with local_ray(workers=1, targets=[], object_store_mb=100):
        answer, process = ray.get(ray.remote(_answer).remote(20), timeout=60)
    if answer != 400 or process == os.getpid():
        raise RuntimeError(f"a task on Ray gave {answer}")
    return f"{ray.__version__}, a task ran on {where}"


def _answer(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


def samplers() -> str:
    """Every sampler draws and is told."""
    from vitsearch.config import SAMPLERS
    from vitsearch.search import Asker
    from vitsearch.space import SearchSpace, load_preset

    space = SearchSpace(load_preset("vit_micro_8"), in_chans=1, num_classes=10)
    for name in SAMPLERS:
        asker = Asker(space, _job(name))
        asked = asker.ask()
        space.decode(asked.draw)
        asker.tell(asked.number, [0.5, 1.0])
    return f"{metadata.version('optuna')}, {', '.join(SAMPLERS)} ask and tell"


def mlflow_run() -> str:
    """A run with a metric goes into a store like a search's and comes back."""
    from vitsearch.tracking import default_uri
    from vitsearch.tracking.client import connect

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        client, experiment = connect(_job(), out, default_uri(out), None, is_local=True)
        run = client.create_run(experiment).info.run_id
        client.log_metric(run, "accuracy", 0.5)
        found = client.get_run(run).data.metrics
    if found != {"accuracy": 0.5}:
        raise RuntimeError(f"a metric came back as {found}")
    return f"{metadata.version('mlflow')}, a run is recorded in SQLite"


def onnx_file() -> str:
    """A small network is exported and gives the same logits on ONNX Runtime."""
    import numpy as np
    import onnxruntime
    import torch

    from vitsearch.models import build_dense
    from vitsearch.onnx import OnnxModel, export_onnx

    model = build_dense(_architecture()).eval()
    images_BCHW = torch.randn(3, 1, 8, 8)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "model.onnx"
        export_onnx(model, path, in_chans=1, image_size=8)
        worst = float(np.abs(OnnxModel(path)(images_BCHW.numpy()) - model(images_BCHW).numpy()).max())
    if worst > 1e-4:
        raise RuntimeError(f"logits differ by {worst:.3g} from PyTorch's")
    return f"{onnxruntime.__version__}, exports and agrees; {', '.join(onnxruntime.get_available_providers())}"


def database() -> str:
    """A study is stored in this folder by SQLite with a write-ahead log."""
    from vitsearch.storage import StudyStore, database_url, open_engine

    with tempfile.TemporaryDirectory(prefix=".vitsearch-doctor-", dir=Path.cwd()) as folder:
        engine = open_engine(database_url(Path(folder)))
        try:
            StudyStore.create(engine, _job())
            with engine.connect() as connection:
                mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
        finally:
            engine.dispose()
    if mode != "wal":
        raise RuntimeError(f"SQLite keeps a {mode} journal here instead of a write-ahead log")
    return "SQLite stores a study, with a write-ahead log"


def room() -> str:
    """A file can be written here, and memory and disk have a gigabyte to spare."""
    import psutil

    with tempfile.TemporaryFile(dir=Path.cwd()) as file:
        file.write(bytes(2**20))
        file.flush()
        os.fsync(file.fileno())
    free = shutil.disk_usage(Path.cwd()).free
    available = psutil.virtual_memory().available
    if min(free, available) < MIN_FREE_BYTES:
        raise RuntimeError(f"less than 1 GB left: disk {free / 1e9:.1f} GB, memory {available / 1e9:.1f} GB")
    return f"{available / 1e9:.0f} GB memory, {free / 1e9:.0f} GB disk, {psutil.cpu_count()} processors"


def fetched_files() -> str:
    """The folder of fetched files is there."""
    from vitsearch.fetching import kept_copies

    folder, num_bytes = kept_copies()
    return f"{num_bytes / 1e6:,.0f} MB in {folder}, which may be deleted at any time"


def accelerator() -> str:
    """The graphics card multiplies."""
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("no CUDA device")
    _multiply("cuda", torch.float32)
    return str(torch.cuda.get_device_name())


def bf16() -> str:
    """The processor multiplies in bfloat16, and does so itself."""
    import torch

    from vitsearch.train.autocast import executes_bf16

    _multiply("cpu", torch.bfloat16)
    if not executes_bf16(torch.device("cpu")):
        raise RuntimeError("this processor only emulates bfloat16")
    return "executed natively; each study measures whether it is faster"


def hugging_face() -> str:
    """A data set is made and read."""
    import datasets

    found = datasets.Dataset.from_dict({"label": [1, 2, 3]})
    if found[1] != {"label": 2}:
        raise RuntimeError(f"a row came back as {found[1]}")
    return f"{datasets.__version__}, a data set is read"


def postgres() -> str:
    """The driver finds its library."""
    import psycopg

    return f"{psycopg.__version__}, libpq {psycopg.pq.version()}"


def _multiply(device: str, dtype: torch.dtype) -> None:
    import torch

    ones = torch.ones(64, 64, device=device, dtype=dtype)
    total = float((ones @ ones).sum())
    if total != 64**3:
        raise RuntimeError(f"a matrix product of ones sums to {total:g} instead of {64**3}")


def _architecture() -> Architecture:
    from vitsearch.candidate import Architecture

    return Architecture(
        image_size=8, in_chans=1, num_classes=10, patch_size=4, depth=1, width=16, heads=2, mlp_ratio=2.0
    )


def _job(sampler: str = "random") -> JobSpec:
    from vitsearch.config import JobSpec

    return JobSpec.model_validate({
        "name": "doctor", "dataset": {"kind": "digits"}, "space": "vit_micro_8", "search": {"sampler": sampler},
    })  # fmt: skip
