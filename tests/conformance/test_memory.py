"""Memory that really runs out: of a process, and of a machine under Ray's watch."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from vitsearch.candidate import Architecture, Candidate
from vitsearch.config import DatasetSpec
from vitsearch.messages import TrialFailure, TrialRequest, TrialResult
from vitsearch.search import TrialDone
from vitsearch.testing.executors import events_until, outcome_of, small_trial
from vitsearch.train.data import ImageData, load_dataset
from workers import RayExecutor, SharedData, local_ray
from workers.trainer import Trainer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    pytest.mark.skipif(sys.platform != "linux", reason="limits of memory, and Ray's watch over it, are Linux's"),
]
GIB = 2**30
ROOM = 3 * GIB


class Greedy(Trainer):
    """Takes ever more memory for the trial with the number 0."""

    def run(self, request_json: str) -> str:
        taken = []
        while TrialRequest.model_validate_json(request_json).trial == 0:
            taken.append(bytearray(os.urandom(2**20) * 32))
            time.sleep(0.02)
        return super().run(request_json)


class Limited(Trainer):
    """May have two gigabytes more than it has."""

    def run(self, request_json: str) -> str:
        limit = psutil.Process().memory_info().vms + 2 * GIB
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        return super().run(request_json)


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load_dataset(DatasetSpec(kind="digits", max_images=200), image_size=8, seed=0)


@pytest.fixture
def watched(data: ImageData, monkeypatch: pytest.MonkeyPatch) -> Iterator[SharedData]:
    """A Ray that kills before the machine itself is short of memory."""
    memory = psutil.virtual_memory()
    if memory.available < 2 * ROOM:
        pytest.skip("too little memory is free")
    monkeypatch.setenv(
        "RAY_memory_usage_threshold", f"{(memory.total - memory.available + ROOM) / memory.total:.4f}"
    )
    with local_ray(workers=2, targets=["local"], object_store_mb=100):
        yield SharedData.put(data)


def request(data: ImageData, folder: Path, number: int, epochs: int = 1) -> TrialRequest:
    return small_trial(folder, data.fingerprint, number=number, epochs=epochs)


def test_the_trial_that_takes_the_memory_of_its_machine_is_blamed_and_no_other(
    watched: SharedData, data: ImageData, tmp_path: Path
) -> None:
    executor = RayExecutor(watched, workers=2, threads=1, cpus=0.5, trainer=Greedy)
    try:
        executor.wait_until_ready()
        executor.submit("w0", request(data, tmp_path, 0))
        executor.submit("w1", request(data, tmp_path, 1, epochs=100_000))
        (done,) = (event for event in events_until(executor, TrialDone) if isinstance(event, TrialDone))
        assert isinstance(done.outcome, TrialFailure)
        assert (done.worker, done.outcome.trial) == ("w0", 0)
        assert (done.outcome.failure, done.outcome.retryable) == ("out_of_memory", False)
        assert "low on memory" in done.outcome.message
        assert not any(isinstance(event, TrialDone) for event in executor.poll(1.0)), (
            "the other may be tried again"
        )

        deadline = time.monotonic() + 90
        while "w0" not in executor.idle_workers():
            assert time.monotonic() < deadline
            executor.poll(0.2)
        executor.submit("w0", request(data, tmp_path, 2))
        assert isinstance(outcome_of(events_until(executor, TrialDone)), TrialResult)
    finally:
        executor.close()


def test_a_candidate_beyond_the_memory_of_its_process_leaves_the_process_to_the_next(
    data: ImageData, tmp_path: Path
) -> None:
    import ray

    huge = Candidate(
        architecture=Architecture(
            image_size=8, in_chans=1, num_classes=10, patch_size=4, width=16_384, depth=1, heads=128
        )
    )
    with local_ray(workers=1, targets=["local"], object_store_mb=100):
        executor = RayExecutor(SharedData.put(data), workers=1, threads=1, cpus=0.5, trainer=Limited)
        try:
            executor.wait_until_ready()
            process = ray.get(executor._pool.workers["w0"].actor.ping.remote())
            executor.submit("w0", request(data, tmp_path, 0).model_copy(update={"candidate": huge}))
            outcome = outcome_of(events_until(executor, TrialDone))
            assert isinstance(outcome, TrialFailure)
            assert (outcome.stage, outcome.failure, outcome.retryable) == ("build", "out_of_memory", False)

            assert executor.idle_workers() == ["w0"]
            executor.submit("w0", request(data, tmp_path, 1))
            outcome = outcome_of(events_until(executor, TrialDone))
            assert isinstance(outcome, TrialResult), outcome
            assert ray.get(executor._pool.workers["w0"].actor.ping.remote()) == process
        finally:
            executor.close()
