"""One profile request to one profile."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from vitsearch.candidate import Candidate
from vitsearch.config import RUNTIMES as TABLE
from vitsearch.config.named import Imported
from vitsearch.messages import Conditions, Profile, ProfileRequest
from vitsearch.models import VisionTransformer
from vitsearch.profile.measure import MB, measure_latency, peak_memory, processor_name
from vitsearch.profile.runnable import Images, Runnable, Runtime, validation_batches
from vitsearch.train.tensors import TensorData

RUNTIMES: Mapping[str, Runtime] = Imported(TABLE, path=lambda kind: kind.prepare)
ACCURACY_BATCH = 64


def run_profile(request: ProfileRequest, model: VisionTransformer, data: TensorData | None = None) -> Profile:
    """Measure latency, throughput, memory and file size of a trained model, on each runtime that the target names.

    Bits that no runtime executes run as the float arithmetic they are simulated with: a latency never profits from
    them, and a runtime that executes other bits than the candidate's is left out. With images at hand these are
    what is computed, and a runtime with an arithmetic of its own is scored on the validation split.

    Args:
        request: What to measure and how.
        model: The candidate's network with its trained weights.
        data: The study's images, on the CPU.

    Returns:
        The profile of the fastest runtime; the others are inside it, and why one could not be measured.

    Raises:
        ValueError: No runtime of the target executes the candidate.
        Exception: All that do have failed; what the first one has raised.
    """
    target = request.target
    names = dict.fromkeys((target.runtime, *target.also))
    able = [name for name in names if executes(name, request.candidate)]
    if not able:
        raise ValueError(f"no runtime of target {target.name!r} executes {request.candidate.summary()}")
    found: list[Profile] = []
    errors: dict[str, Exception] = {}
    for name in able:
        try:
            found.append(_measure(request, name, model, data))
        except Exception as error:  # noqa: BLE001 - one runtime's failure is no reason to lose the others' figures
            errors[name] = error
    if not found:
        raise next(iter(errors.values()))
    fastest = min(found, key=lambda profile: profile.latency_ms_p50)
    others = tuple(one for one in found if one is not fastest)
    failed = {name: one_line(error) for name, error in errors.items()}
    return fastest.model_copy(update={"others": others, "failed": failed})


def one_line(error: Exception) -> str:
    """The kind of an error and the first line of what it says."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0] if said else 'no message'}"


def executes(runtime: str, candidate: Candidate) -> bool:
    """Whether a runtime computes in floating point, or in the candidate's own bits everywhere."""
    bits, depth = TABLE[runtime].bits, candidate.pruned_architecture.depth
    precision = candidate.precision
    own = {*precision.weight_bits_per_block(depth), *precision.activation_bits_per_block(depth)}
    return bits is None or own == {bits}


def _measure(request: ProfileRequest, runtime: str, model: VisionTransformer, data: TensorData | None) -> Profile:
    target, folder = request.target, Path(request.artifact_dir)
    prepare: Callable[[], Runnable] = lambda: RUNTIMES[runtime](model, request.candidate, target, folder, data)  # noqa: E731
    inputs = _inputs(model, target.batch_size, data)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(target.threads)
    try:
        prepare().run(next(inputs))  # neither an export nor what a library sets up at first is the model's
        with peak_memory() as memory:
            runnable = prepare()
            runnable.run(next(inputs))
        latency = measure_latency(lambda: runnable.run(next(inputs)), warmup=target.warmup, repeats=target.repeats)
        accuracy = _accuracy(runnable, data) if TABLE[runtime].own_arithmetic else None
    finally:
        torch.set_num_threads(threads_before)
    weights_mb = sum(p.numel() * p.element_size() for p in model.parameters()) / MB
    return Profile(
        latency_ms_p50=latency.p50_s * 1e3,
        latency_ms_p95=latency.p95_s * 1e3,
        latency_ms_spread=latency.spread,
        images_per_s=target.batch_size / latency.p50_s,
        peak_memory_mb=memory.added_mb + (weights_mb if runtime.startswith("pytorch") else 0.0),
        file_size_mb=runnable.file.stat().st_size / MB if runnable.file.exists() else 0.0,
        accuracy=accuracy,
        conditions=Conditions(
            target=target.name,
            runtime=runnable.name,
            device=processor_name(),
            dtype=runnable.dtype,
            batch_size=target.batch_size,
            threads=target.threads,
            warmup=target.warmup,
            repeats=target.repeats,
            contended=request.contended,
            inputs="noise" if data is None else "validation images",
        ),
    )


def _inputs(model: VisionTransformer, batch_size: int, data: TensorData | None) -> Iterator[Images]:
    """Batches without end: of the validation split, round and round, or one of noise."""
    a = model.architecture
    if data is None:
        shape = (batch_size, a.in_chans, a.image_size, a.image_size)
        return itertools.repeat(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))
    images = data.source.val
    rounds = np.resize(images, max(1, -(-len(images) // batch_size)) * batch_size).reshape(-1, batch_size)
    indices = torch.from_numpy(rounds[:256])  # more than any number of repeats is worth
    return itertools.cycle([data.normalized(batch).cpu().numpy() for batch in indices])


def _accuracy(runnable: Runnable, data: TensorData | None) -> float | None:
    if data is None:
        return None
    right = total = 0
    for images_BCHW, labels_B in validation_batches(data, ACCURACY_BATCH):
        right += int((runnable.run(images_BCHW).argmax(axis=1) == labels_B).sum())
        total += len(labels_B)
    return right / max(1, total)
