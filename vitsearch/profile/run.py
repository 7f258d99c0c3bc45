"""One profile request to one profile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from vitsearch.config import RUNTIMES as TABLE
from vitsearch.config import TargetSpec
from vitsearch.config.named import Imported
from vitsearch.messages import Conditions, Profile, ProfileRequest
from vitsearch.profile.measure import MB, measure_latency, peak_memory, processor_name


class Runtime(Protocol):
    """How a runtime makes a network callable."""

    def __call__(
        self, model: nn.Module, target: TargetSpec, folder: Path
    ) -> tuple[Callable[[], object], Path, str]:
        """A call that runs one batch to completion, the file the runtime loads, and the runtime's name."""
        ...


RUNTIMES: Mapping[str, Runtime] = Imported(TABLE)


def run_profile(request: ProfileRequest, model: nn.Module) -> Profile:
    """Measure latency, throughput, memory and file size of a trained model.

    Simulated bit-widths run as the float32 arithmetic they are simulated with: a latency never profits from them.

    Args:
        request: What to measure and how.
        model: The candidate's network with its trained weights.
    """
    target = request.target
    threads_before = torch.get_num_threads()
    torch.set_num_threads(target.threads)
    folder = Path(request.artifact_dir)
    try:
        warm_up, *_ = RUNTIMES[target.runtime](model, target, folder)
        warm_up()  # neither an export nor an import nor what a library sets up at its first call is the model's
        del warm_up
        with peak_memory() as memory:
            call, file, runtime = RUNTIMES[target.runtime](model, target, folder)
            call()
        latency = measure_latency(call, warmup=target.warmup, repeats=target.repeats)
    finally:
        torch.set_num_threads(threads_before)
    weights_mb = sum(p.numel() * p.element_size() for p in model.parameters()) / MB
    return Profile(
        latency_ms_p50=latency.p50_s * 1e3,
        latency_ms_p95=latency.p95_s * 1e3,
        latency_ms_spread=latency.spread,
        images_per_s=target.batch_size / latency.p50_s,
        peak_memory_mb=memory.added_mb + (weights_mb if target.runtime == "pytorch" else 0.0),
        file_size_mb=file.stat().st_size / MB if file.exists() else 0.0,
        conditions=Conditions(
            target=target.name,
            runtime=runtime,
            device=processor_name(),
            dtype="float32",
            batch_size=target.batch_size,
            threads=target.threads,
            warmup=target.warmup,
            repeats=target.repeats,
            contended=request.contended,
        ),
    )
