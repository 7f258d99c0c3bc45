"""One profile request to one profile."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from vitsearch.config import LIBRARIES, TargetSpec
from vitsearch.config import RUNTIMES as TABLE
from vitsearch.config.named import Imported
from vitsearch.errors import MeasurementError
from vitsearch.messages import Conditions, Profile, ProfileRequest
from vitsearch.profile.choice import able_runtimes, fastest_of, one_line, runtime_of
from vitsearch.profile.facts import device_name, is_installed, machine_facts, runtime_name
from vitsearch.profile.measure import (
    MB,
    call_for,
    measure_latency,
    peak_memory,
    release_gpu_memory,
    used_gpu_mb,
)
from vitsearch.profile.power import energy_meter, throttle_counter
from vitsearch.profile.runnable import Images, Model, Runnable, Runtime, SampleImages

RUNTIMES: Mapping[str, Runtime] = Imported(TABLE, path=lambda kind: kind.load)
ACCURACY_BATCH = 64
ENERGY_S = 1.0
"""Least time that energy is counted over: a GPU's counter moves only every few tens of milliseconds."""


def run_profile(
    request: ProfileRequest,
    files: Mapping[str, Path],
    images: SampleImages | None = None,
    errors: Mapping[str, str] | None = None,
    *,
    contended: bool = False,
) -> Profile:
    """Measure latency, throughput, memory, energy and file size of a model, on each runtime that the target names.

    Bits that no runtime executes run as the float arithmetic they are simulated with: a latency never profits from
    them, and a runtime that executes other bits than the candidate's is left out. With images at hand these are
    what is computed, and a runtime with an arithmetic of its own is scored on them.

    Args:
        request: What to measure and how; what it knows already is not measured again.
        files: What the runtimes load, by their kind.
        images: The study's validation images.
        errors: Why a kind of file could not be made.
        contended: What to record: whether trainers run meanwhile.

    Returns:
        The profile of the fastest runtime; the others are inside it, and why one could not be measured.

    Raises:
        ValueError: No runtime of the target executes the candidate.
        MeasurementError: All that do have failed.
    """
    found: list[Profile] = []
    failed: dict[str, str] = {}
    for name in able_runtimes(request.target, request.candidate):
        known = [one for one in request.known if runtime_of(one) == name]
        if known:
            found += known
            continue
        kind = TABLE[name].file
        if kind not in files:
            failed[name] = (errors or {}).get(kind, f"there is no file of the kind {kind!r}")
            continue
        try:
            found.append(_measure(request, name, files[kind], images, contended=contended))
        except Exception as error:  # noqa: BLE001 - one runtime's failure is no reason to lose the others' figures
            failed[name] = one_line(error)
    if not found:
        raise MeasurementError(request.target.name, failed)
    return fastest_of(found, failed)


def _measure(
    request: ProfileRequest, runtime: str, file: Path, images: SampleImages | None, *, contended: bool
) -> Profile:
    target = request.target
    _require_installed(runtime, target.name)
    inputs, calls = _inputs(request, images), itertools.count()
    meter, throttled = energy_meter(target.device), throttle_counter(target.device)
    with _loaded(runtime, Model(file=file, candidate=request.candidate), target, inputs) as (runnable, memory_mb):

        def call() -> None:
            next(calls)
            runnable.run(next(inputs))

        for _ in range(target.warmup):
            runnable.run(next(inputs))
        before = throttled() if throttled else 0
        began, energy_mj = time.perf_counter(), None
        if meter is not None:
            meter.start()
        latency = measure_latency(call, repeats=target.repeats)
        if meter is not None:
            call_for(call, ENERGY_S, since=began)
            energy_mj = meter.stop() / (next(calls) * target.batch_size) or None  # 0: it did not move
        after = throttled() if throttled else 0
        accuracy = _accuracy(runnable, images) if TABLE[runtime].own_arithmetic else None
    return Profile(
        latency_ms_p50=latency.p50_s * 1e3,
        latency_ms_p95=latency.p95_s * 1e3,
        latency_ms_spread=latency.spread,
        images_per_s=target.batch_size / latency.p50_s,
        peak_memory_mb=memory_mb,
        file_size_mb=file.stat().st_size / MB,
        energy_mj=energy_mj,
        accuracy=accuracy,
        conditions=Conditions(
            target=target.name,
            runtime=runtime_name(runtime),
            device=device_name(target.device),
            dtype=runnable.dtype,
            batch_size=target.batch_size,
            threads=target.threads,
            warmup=target.warmup,
            repeats=target.repeats,
            contended=contended,
            inputs="noise" if images is None else "validation images",
            rounds=latency.rounds,
            throttled=None if throttled is None else after > before,
            machine=machine_facts().fingerprint,
        ),
    )


@contextmanager
def _loaded(
    runtime: str, model: Model, target: TargetSpec, inputs: Iterator[Images]
) -> Iterator[tuple[Runnable, float]]:
    """The model ready to run, and the memory that holding and running it takes, in MB.

    What a library sets up at its first model, and what only loading needs for a moment, are not the model's.
    """
    load = RUNTIMES[runtime]
    with ExitStack() as stack:

        def ready() -> Runnable:
            runnable = load(model, target)
            stack.callback(runnable.close)
            runnable.run(next(inputs))
            return runnable

        if target.device == "cuda":
            ready()
            stack.close()
            release_gpu_memory()
            before = used_gpu_mb()
            runnable = ready()
            yield runnable, used_gpu_mb() - before
        elif TABLE[runtime].file == "weights":
            runnable = ready()
            with peak_memory() as memory:
                runnable.run(next(inputs))
            yield runnable, memory.added_mb + model.file.stat().st_size / MB
        else:
            ready()
            stack.close()
            with peak_memory() as memory:
                runnable = ready()
            yield runnable, memory.added_mb


def _require_installed(runtime: str, target: str) -> None:
    library = TABLE[runtime].library
    if not is_installed(library):
        raise RuntimeError(
            f"{library} is not installed on target {target!r}; there: pip install {LIBRARIES[library].install}"
        )


def _inputs(request: ProfileRequest, images: SampleImages | None) -> Iterator[Images]:
    """Batches without end: of the validation split, or one of noise."""
    if images is not None:
        return images.endless(request.target.batch_size)
    a = request.candidate.architecture
    shape = (request.target.batch_size, a.in_chans, a.image_size, a.image_size)
    return itertools.repeat(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))


def _accuracy(runnable: Runnable, images: SampleImages | None) -> float | None:
    if images is None:
        return None
    right = total = 0
    for images_BCHW, labels_B in images.batches(ACCURACY_BATCH):
        right += int((runnable.run(images_BCHW).argmax(axis=1) == labels_B).sum())
        total += len(labels_B)
    return right / max(1, total)
