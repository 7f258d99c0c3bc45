"""What the driver relies on, of every executor; and what only real processes can show."""

from __future__ import annotations

import errno
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import workers.desk
import workers.executor
from vitsearch.config import DatasetSpec, DistillSpec, NetworkSpec, TargetSpec, TrainSpec
from vitsearch.errors import StudyError
from vitsearch.messages import EpochReport, ProfileRequest, TrialRequest
from vitsearch.profile import run_profile
from vitsearch.search import (
    EpochDone,
    Event,
    Executor,
    InlineExecutor,
    ProfileDone,
    TrialDone,
    WorkerLost,
    WorkerRests,
    WorkerTaken,
)
from vitsearch.testing.executors import (
    EXECUTOR_CHECKS,
    events_until,
    outcome_of,
    small_measurement,
    small_trial,
)
from vitsearch.train.data import ImageData, load_dataset
from vitsearch.train.tensors import TensorData
from vitsearch.trial import TrialContext, run_trial
from workers import RayExecutor, SharedData, local_ray, measuring, pool, turns
from workers.exporter import Exported, Exporter
from workers.inside import log_folder
from workers.profiler import Profiler
from workers.share import Share
from workers.trainer import Trainer

pytestmark = pytest.mark.xdist_group("ray")
Make = Callable[[], AbstractContextManager[Any]]


class Broken(Trainer):
    """Its device has failed."""

    def run(self, request_json: str) -> str:
        from vitsearch.errors import WorkerError

        raise WorkerError("the device failed in stage train: CUDA error")


class Stuck(Trainer):
    """Never ends."""

    def run(self, request_json: str) -> str:
        while True:
            time.sleep(1)


class Unborn(Trainer):
    """Does not get as far as holding the data."""

    def __init__(self, *arguments: Any) -> None:
        raise RuntimeError("no such data")


class Only(Trainer):
    """The first on a Ray; others cannot start."""

    def __init__(self, *arguments: Any) -> None:
        (log_folder() / "only").mkdir()
        super().__init__(*arguments)


class Unfit(Profiler):
    """On a target that lacks something."""

    def facts(self) -> str:
        raise RuntimeError("no numpy here")


class Homeless(Exporter):
    """What it reads from has failed; for ever, or until a file tells otherwise."""

    def run(self, request_json: str) -> Exported:
        folder = Path(ProfileRequest.model_validate_json(request_json).artifact_dir)
        if not (folder.parent / "mended").exists():
            (folder.parent / "tried").touch()
            raise OSError(errno.EIO, "the store is away")
        return super().run(request_json)


class Mortal(Trainer):
    """Each dies of its first question to the teacher, until a file tells otherwise."""

    def teach(self, train_json: str, seed: int, epoch: int) -> Any:
        told = Path(TrainSpec.model_validate_json(train_json).distill.teachers[0].bundle)
        if not told.exists():
            told.touch()
            os._exit(1)
        return np.full((1, 4, 1), epoch, np.uint16), np.full((1, 4, 1), -0.1, np.float16)


class Lacking(Trainer):
    """Each lacks the teacher, until a file tells otherwise."""

    def teach(self, train_json: str, seed: int, epoch: int) -> Any:
        told = Path(TrainSpec.model_validate_json(train_json).distill.teachers[0].bundle)
        if not told.exists():
            told.touch()
            raise OSError(errno.EIO, "the store is away")
        return np.full((1, 4, 1), epoch, np.uint16), np.full((1, 4, 1), -0.1, np.float16)


class Elsewhere(Trainer):
    """On another machine than the target."""

    def __init__(self, *arguments: Any) -> None:
        turns.FOLDER = Path(tempfile.mkdtemp())
        super().__init__(*arguments)


class Patience(Trainer):
    """Tells how long its threads wait for work."""

    def fastest_autocast(self, architecture_json: str, batch_size: int) -> str:
        return os.environ["GOMP_SPINCOUNT"]


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load_dataset(DatasetSpec(kind="digits", max_images=200), image_size=8, seed=0)


@pytest.fixture(scope="module")
def ray(data: ImageData) -> Iterator[SharedData]:
    with local_ray(workers=2, targets=["local"], object_store_mb=100):
        yield SharedData.put(data)


@pytest.fixture
def on_ray(ray: SharedData) -> Make:
    @contextmanager
    def make(trainer: type[Trainer] = Trainer, workers: int = 1) -> Iterator[RayExecutor]:
        executor = RayExecutor(ray, workers=workers, threads=1, cpus=0.5, trainer=trainer)
        executor.wait_until_ready()
        try:
            yield executor
        finally:
            executor.close()

    return make


class Standing:
    """An executor of two trainers that most tests use one after the other: a trainer takes seconds to start."""

    def __init__(self, data: SharedData) -> None:
        self._data = data
        self._executor: RayExecutor | None = None

    def __call__(self) -> RayExecutor:
        if self._executor is None:
            self._executor = RayExecutor(self._data, workers=2, threads=1, cpus=0.5)
            self._executor.wait_until_ready()
        return self._executor

    def tidy(self) -> None:
        """Let go of what a test has left running."""
        if self._executor is not None:
            for worker in {*self._executor._pool.workers} - {*self._executor.idle_workers()}:
                self._executor.restart(worker, "the test is over")
            wait_until_idle(self._executor, ["w0", "w1"])
            for name, target in list(self._executor._targets.items()):
                if target._queue or target._current:
                    forget(self._executor, name)
            while any(worker.report is not None for worker in self._executor._pool):
                self._executor.poll(0.1)
            self._executor.poll(0)

    def close(self) -> None:
        """Leave the processors to others."""
        if self._executor is not None:
            self._executor.close()
        self._executor = None


@pytest.fixture(scope="module")
def standing(ray: SharedData) -> Iterator[Standing]:
    found = Standing(ray)
    yield found
    found.close()


@pytest.fixture
def shared(standing: Standing) -> Iterator[RayExecutor]:
    yield standing()
    standing.tidy()


@pytest.fixture
def inline(data: ImageData) -> InlineExecutor:
    import torch

    tensors = TensorData(data, torch.device("cpu"))
    return InlineExecutor(
        lambda request: run_trial(request, TrialContext(data=tensors)),
        lambda request: run_profile(request, {"weights": Path(request.artifact_dir) / "model.safetensors"}),
    )


@pytest.fixture(params=["inline", "shared"])
def executor(request: pytest.FixtureRequest) -> Executor:
    found: Executor = request.getfixturevalue(request.param)
    return found


def trial(folder: Path, data: ImageData, number: int = 0, epochs: int = 1) -> TrialRequest:
    return small_trial(folder, data.fingerprint, number=number, epochs=epochs)


def wait_until_idle(executor: Executor, workers: list[str], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while executor.idle_workers() != workers:
        assert time.monotonic() < deadline, executor.idle_workers()
        executor.poll(0.2)


def measurement(folder: Path, number: int = 0, **settings: Any) -> ProfileRequest:
    request = small_measurement(folder, number=number)
    return request.model_copy(update={"target": request.target.model_copy(update=settings)})


@pytest.mark.parametrize("check", EXECUTOR_CHECKS, ids=lambda check: check.__name__)
def test_a_promise(
    check: Callable[[Executor, str, Path], None], executor: Executor, data: ImageData, tmp_path: Path
) -> None:
    check(executor, data.fingerprint, tmp_path)


def test_both_executors_find_the_same_weights(
    shared: RayExecutor, inline: InlineExecutor, data: ImageData, tmp_path: Path
) -> None:
    checksums = []
    for name, executor in (("ray", shared), ("inline", inline)):
        executor.submit(executor.idle_workers()[0], trial(tmp_path / name, data, epochs=2))
        checksums.append(outcome_of(events_until(executor, TrialDone)).weights_sha256)
    assert checksums[0] == checksums[1]


def test_threads_of_a_trainer_leave_the_processor_to_others_soon(
    on_ray: Make, data: ImageData, tmp_path: Path
) -> None:
    with on_ray(Patience) as executor:
        shape = trial(tmp_path, data).candidate.architecture
        assert 0 < int(executor.fastest_autocast(shape, 8)) < 100_000


def test_a_failed_measurement_says_why(shared: RayExecutor, tmp_path: Path) -> None:
    shared.submit_profile(measurement(tmp_path, 7))
    (done,) = events_until(shared, ProfileDone)
    assert isinstance(done, ProfileDone)
    assert done.profile is None
    assert "model.safetensors" in done.reason


def test_epochs_are_reported_while_the_trial_runs(shared: RayExecutor, data: ImageData, tmp_path: Path) -> None:
    shared.submit("w0", trial(tmp_path, data, number=7, epochs=200))
    reports: list[EpochReport] = []
    while not reports:  # those of trials that had ended before they were asked for come along
        events = events_until(shared, EpochDone)
        assert not any(isinstance(event, TrialDone) for event in events)
        reports = [e.report for e in events if isinstance(e, EpochDone) and e.report.trial == 7]
    assert [report.epoch for report in reports] == list(range(1, len(reports) + 1))


def test_a_killed_process_is_a_lost_worker_and_its_trial_goes_on_with_the_next_epoch(
    shared: RayExecutor, data: ImageData, tmp_path: Path
) -> None:
    import ray

    def latest(events: list[Event]) -> int:
        return max(e.report.epoch for e in events if isinstance(e, EpochDone) and e.report.trial == 8)

    process = ray.get(shared._pool.workers["w0"].actor.ping.remote())
    request = trial(tmp_path, data, number=8, epochs=500)
    shared.submit("w0", request)
    events = events_until(shared, EpochDone)
    os.kill(process, signal.SIGKILL)
    events += events_until(shared, WorkerLost)
    lost = events[-1]
    assert isinstance(lost, WorkerLost)
    assert (lost.worker, lost.trial) == ("w0", 8)
    assert "worker process has died" in lost.reason
    assert "\n" not in lost.reason
    wait_until_idle(shared, ["w0", "w1"])
    assert ray.get(shared._pool.workers["w0"].actor.ping.remote()) != process
    shared.submit("w0", request)
    (first, *_) = (e.report for e in events_until(shared, EpochDone) if isinstance(e, EpochDone))
    assert first.trial == 8
    assert latest(events) < first.epoch < 500, "it goes on where it was"


def test_a_process_whose_device_failed_is_replaced(on_ray: Make, data: ImageData, tmp_path: Path) -> None:
    import ray

    with on_ray(Broken) as executor:
        process = ray.get(executor._pool.workers["w0"].actor.ping.remote())
        executor.submit("w0", trial(tmp_path, data))
        (lost,) = events_until(executor, WorkerLost)
        assert isinstance(lost, WorkerLost)
        assert "the device failed in stage train" in lost.reason
        assert ray.get(executor._pool.workers["w0"].actor.ping.remote()) != process


@pytest.mark.slow
def test_a_restarted_worker_is_idle_and_its_trial_forgotten(on_ray: Make, data: ImageData, tmp_path: Path) -> None:
    with on_ray(Stuck) as executor:
        executor.submit("w0", trial(tmp_path, data))
        assert executor.poll(1.0) == []
        executor.restart("w0", "no progress")
        assert executor.idle_workers() == [], "it has not started yet"
        wait_until_idle(executor, ["w0"])
        assert executor.poll(0.5) == []


def test_training_rests_while_something_is_measured(shared: RayExecutor, data: ImageData, tmp_path: Path) -> None:
    shared.submit("w0", trial(tmp_path, data))
    events_until(shared, TrialDone)
    shared.submit("w0", trial(tmp_path, data, number=1, epochs=5000))
    events_until(shared, EpochDone)
    shared.submit_profile(measurement(tmp_path, repeats=3000))
    events = events_until(shared, ProfileDone)
    assert WorkerRests(worker="w0") in events, "the driver must not take it for one that hangs"
    (done,) = (e for e in events if isinstance(e, ProfileDone))
    assert done.profile is not None
    assert not done.profile.conditions.contended
    events_until(shared, EpochDone)


@pytest.mark.slow
def test_training_of_another_study_rests_too(
    shared: RayExecutor, on_ray: Make, data: ImageData, tmp_path: Path
) -> None:
    shared.submit("w0", trial(tmp_path, data))
    events_until(shared, TrialDone)
    with on_ray() as other:
        other.submit("w0", trial(tmp_path, data, number=1, epochs=5000))
        events_until(other, EpochDone)
        shared.submit_profile(measurement(tmp_path, repeats=3000))
        rested = False
        while not (done := [e for e in shared.poll(0.1) if isinstance(e, ProfileDone)]):
            rested |= WorkerRests(worker="w0") in other.poll(0.1)
        assert rested
        assert done[0].profile is not None
        assert not done[0].profile.conditions.contended
        events_until(other, EpochDone)


@pytest.mark.slow
def test_two_studies_measure_on_one_target(
    shared: RayExecutor, on_ray: Make, data: ImageData, tmp_path: Path
) -> None:
    """Neither holds the target for longer than one measurement."""
    shared.submit("w0", trial(tmp_path, data))
    events_until(shared, TrialDone)
    with on_ray() as other:
        for executor in (shared, other, shared, other):
            executor.submit_profile(measurement(tmp_path))
            *_, done = events_until(executor, ProfileDone)
            assert isinstance(done, ProfileDone)
            assert done.profile is not None


@pytest.mark.slow
def test_trainers_of_other_machines_go_on_while_something_is_measured(
    shared: RayExecutor, on_ray: Make, data: ImageData, tmp_path: Path
) -> None:
    shared.submit("w0", trial(tmp_path, data))
    events_until(shared, TrialDone)
    with on_ray(Elsewhere, workers=2) as executor:
        executor.submit("w0", trial(tmp_path, data, number=1, epochs=2000))
        events_until(executor, EpochDone)
        executor.submit_profile(measurement(tmp_path, repeats=3000))
        *events, done = events_until(executor, ProfileDone)
        assert isinstance(done, ProfileDone)
        assert done.profile is not None
        assert not any(isinstance(event, WorkerRests) for event in events)
        assert any(isinstance(event, EpochDone) for event in events)


@pytest.mark.slow
def test_a_killed_profiler_is_replaced_and_the_measurement_made_again(
    shared: RayExecutor, data: ImageData, tmp_path: Path
) -> None:
    import ray

    shared.submit("w0", trial(tmp_path, data))
    events_until(shared, TrialDone)
    slow = measurement(tmp_path)
    shared.submit_profile(slow.model_copy(update={"target": slow.target.model_copy(update={"repeats": 5_000})}))
    target = shared._targets["local"]
    while target._current is None or target._current.task is None:
        shared.poll(0.1)
    ray.kill(target._posts[0].actor)
    *_, done = events_until(shared, ProfileDone)
    assert isinstance(done, ProfileDone)
    assert done.profile is not None, done.reason
    assert done.profile.conditions.repeats == 5_000


@pytest.mark.slow
def test_a_model_that_takes_its_target_down_each_time_is_given_up_on(
    shared: RayExecutor, data: ImageData, tmp_path: Path
) -> None:
    import ray

    shared.submit("w0", trial(tmp_path, data))
    events_until(shared, TrialDone)
    endless = measurement(tmp_path)
    shared.submit_profile(
        endless.model_copy(update={"target": endless.target.model_copy(update={"repeats": 10**6})})
    )
    target, killed, events = shared._targets["local"], [], []
    deadline = time.monotonic() + 120
    while not events:
        assert time.monotonic() < deadline
        events = [event for event in shared.poll(0.1) if isinstance(event, ProfileDone)]
        current = target._current
        if current is not None and current.task is not None and current.attempt not in killed:
            killed.append(current.attempt)
            ray.kill(target._posts[0].actor)
    assert killed == [1, 2, 3]
    assert events[0].profile is None
    assert events[0].reason
    shared.submit_profile(measurement(tmp_path))
    *_, done = events_until(shared, ProfileDone)
    assert isinstance(done, ProfileDone)
    assert done.profile is not None, "the next one is innocent"


def away(folder: Path, name: str, **settings: Any) -> ProfileRequest:
    """A measurement on a target that no node offers."""
    target = TargetSpec(name=name, warmup=1, repeats=3, **settings)
    return measurement(folder).model_copy(update={"target": target})


def test_a_target_that_is_away_is_waited_for_and_training_goes_on(
    shared: RayExecutor, data: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "AWAY_AFTER_S", 0.5)
    shared.submit("w0", trial(tmp_path, data))
    events_until(shared, TrialDone)
    shared.submit_profile(away(tmp_path, "phone"))
    shared.submit("w0", trial(tmp_path, data, number=1))
    assert isinstance(events_until(shared, TrialDone)[-1], TrialDone), "nothing rests for it"
    assert shared.idle_workers() == ["w0", "w1"]
    deadline = time.monotonic() + 30
    while not shared.waits_for():
        assert time.monotonic() < deadline
        assert shared.poll(0.2) == []
    assert shared.waits_for().startswith("waiting for target phone: away for ")


def test_a_target_that_stays_away_too_long_leaves_the_model_unmeasured(
    shared: RayExecutor, data: ImageData, tmp_path: Path
) -> None:
    shared.submit("w0", trial(tmp_path, data))
    events_until(shared, TrialDone)
    shared.submit_profile(away(tmp_path, "tablet", wait_s=1.0))
    (done,) = events_until(shared, ProfileDone)
    assert isinstance(done, ProfileDone)
    assert done.profile is None
    assert done.reason.startswith("target 'tablet' was away for ")


@pytest.mark.slow
def test_a_killed_exporter_is_replaced(shared: RayExecutor, data: ImageData, tmp_path: Path) -> None:
    import ray

    shared.submit("w0", trial(tmp_path, data))
    events_until(shared, TrialDone)
    for _ in range(2):
        before = shared._desk._last
        shared.submit_profile(measurement(tmp_path))
        while shared._desk._last is before:
            shared.poll(0.01)
        ray.kill(shared._desk._exporter)
        *_, done = events_until(shared, ProfileDone)
        assert isinstance(done, ProfileDone)
        assert done.profile is not None, done.reason


def test_a_process_that_dies_at_its_start_again_and_again_says_why(
    shared: RayExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.executor, "Profiler", Unfit)
    monkeypatch.setattr(measuring, "MOST_DEATHS", 2)
    forget(shared, "local")  # its process is none of these
    shared.submit_profile(measurement(tmp_path))
    (done,) = events_until(shared, ProfileDone)
    forget(shared, "local")
    assert isinstance(done, ProfileDone)
    assert done.profile is None
    assert "dies at the start" in done.reason
    assert "no numpy here" in done.reason


def forget(executor: RayExecutor, target: str) -> None:
    """Let the next measurement there start a process."""
    known = executor._targets.pop(target, None)
    if known is not None:
        known.close()


def test_another_target_stands_in_by_the_jobs_choice(shared: RayExecutor, data: ImageData, tmp_path: Path) -> None:
    shared.submit("w0", trial(tmp_path, data))
    events_until(shared, TrialDone)
    shared.submit_profile(away(tmp_path, "jetson", wait_s=1.0, fallback="local"))
    (done,) = events_until(shared, ProfileDone)
    assert isinstance(done, ProfileDone)
    assert done.profile is not None, done.reason
    assert (done.target, done.profile.conditions.target) == ("jetson", "jetson")
    assert done.profile.conditions.measured_by == "local"
    assert "measured by local in its place" in done.profile.notes
    assert shared.facts_of("jetson") is None, "figures of equal hardware are not looked up under another's"


@pytest.mark.slow
def test_the_model_travels_to_the_target_by_value(shared: RayExecutor, data: ImageData, tmp_path: Path) -> None:
    """The study's folder may be gone from where it is measured."""
    shared.submit("w0", trial(tmp_path, data))
    events_until(shared, TrialDone)
    shared.submit_profile(measurement(tmp_path))
    target = shared._targets["local"]
    while target._current is None or target._current.task is None:
        shared.poll(0.05)
    (tmp_path / "0").rename(tmp_path / "elsewhere")
    *_, done = events_until(shared, ProfileDone)
    assert isinstance(done, ProfileDone)
    assert done.profile is not None, done.reason


def test_an_idle_trainer_that_dies_is_replaced_before_a_trial_is_lost(
    shared: RayExecutor, data: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(pool, "PULSE_EVERY_S", 0.1)
    process = ray.get(shared._pool.workers["w0"].actor.ping.remote())
    os.kill(process, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while shared._pool.workers["w0"].is_ready and time.monotonic() < deadline:
        shared.poll(0.1)
        shared.idle_workers()
    wait_until_idle(shared, ["w0", "w1"])
    shared.submit("w0", trial(tmp_path, data))
    assert isinstance(events_until(shared, TrialDone)[-1], TrialDone)


@pytest.mark.slow
def test_a_store_that_is_away_for_a_while_costs_no_measurement(
    on_ray: Make, data: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.desk, "Exporter", Homeless)
    monkeypatch.setattr(measuring, "RESTART_AFTER_S", 2.0)
    with on_ray() as executor:
        executor.submit("w0", trial(tmp_path, data))
        events_until(executor, TrialDone)
        executor.submit_profile(measurement(tmp_path))
        while not (tmp_path / "tried").exists():
            assert executor.poll(0.1) == []
        (tmp_path / "mended").touch()
        (done,) = events_until(executor, ProfileDone)
        assert isinstance(done, ProfileDone)
        assert done.profile is not None, done.reason

        (tmp_path / "mended").unlink()
        monkeypatch.setattr(measuring, "RESTART_AFTER_S", 0.1)
        executor.submit_profile(measurement(tmp_path))
        with pytest.raises(
            StudyError, match=r"trial 0 cannot be measured on local: .*the store is away; mend the store"
        ):
            events_until(executor, ProfileDone)


@pytest.mark.slow
@pytest.mark.parametrize("trainer", [Mortal, Lacking])
def test_a_trainer_that_fails_while_a_teacher_is_asked_costs_an_epoch(
    trainer: type[Trainer], on_ray: Make, tmp_path: Path
) -> None:
    spec = DistillSpec(method="hard", teacher=NetworkSpec(bundle=tmp_path / "died"))
    told: list[int] = []
    with on_ray(trainer, workers=2) as executor:
        classes, _ = executor.ask_teacher(TrainSpec(epochs=3, distill=spec), 1, told.append)
        assert classes[:, 0, 0].tolist() == [0, 1, 2]
        assert told == [1, 2, 3]
        wait_until_idle(executor, ["w0", "w1"])


@pytest.mark.slow
def test_trainers_that_cannot_start_end_the_search_with_the_reason(
    on_ray: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "RESTART_AFTER_S", 0.1)
    why = r"trainers die at their start, the last one because: .*no such data"
    with pytest.raises(StudyError, match=why), on_ray(Unborn):
        pass


@pytest.mark.slow
def test_trainers_that_cannot_start_are_not_waited_for_while_others_work(
    on_ray: Make, data: ImageData, tmp_path: Path
) -> None:
    with on_ray(Only, workers=2) as executor:
        (worker,) = executor.idle_workers()
        executor.submit(worker, trial(tmp_path, data))
        assert isinstance(events_until(executor, TrialDone)[-1], TrialDone)


class Limited(Share):
    """A share that a test sets."""

    def __init__(self) -> None:
        super().__init__("test", priority=1, at_most=None, takes={"CPU": 0.5})
        self.allowance = 2

    def refresh(self, held: int, busy: int, *, rests: bool) -> int:
        return self.allowance


@pytest.mark.slow
def test_a_trainer_whose_place_is_wanted_leaves_at_an_epoch_and_its_trial_goes_on(
    ray: SharedData, data: ImageData, tmp_path: Path
) -> None:
    share = Limited()
    executor = RayExecutor(ray, workers=1, threads=1, cpus=0.5, share=share)
    try:
        executor.wait_until_ready()
        wait_until_idle(executor, ["w0", "w1"])
        long, short = trial(tmp_path, data, epochs=500), trial(tmp_path, data, number=1, epochs=500)
        executor.submit("w0", long)
        executor.submit("w1", short)
        events_until(executor, EpochDone)
        share.allowance = 1
        *_, taken = events_until(executor, WorkerTaken)
        assert isinstance(taken, WorkerTaken)
        assert taken.worker == f"w{taken.trial}"
        assert (tmp_path / str(taken.trial) / "epoch.pt").is_file(), "what it has learnt is kept"
        assert executor.idle_workers() == []
        share.allowance = 2
        wait_until_idle(executor, [taken.worker])
        executor.submit(taken.worker, (long, short)[taken.trial])
        while True:
            reports = [e.report for e in events_until(executor, EpochDone) if isinstance(e, EpochDone)]
            mine = [report.epoch for report in reports if report.trial == taken.trial]
            if mine:
                break
        assert mine[0] > 1, "it goes on where it was"
    finally:
        executor.close()


@pytest.mark.slow
def test_studies_share_the_processors(
    ray: SharedData, standing: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the real actor: each gets what its priority says, all of it when the other leaves, little at rest."""
    standing.close()
    monkeypatch.setattr(workers.executor, "REST_S", 1e6)
    makes = [
        lambda name=name, priority=priority: RayExecutor(
            ray, workers=1, threads=1, cpus=0.25,
            share=Share(name, priority=priority, at_most=6, takes={"CPU": 0.25}),
        )
        for name, priority in (("a", 1), ("b", 3))
    ]  # fmt: skip
    num_cpus = local_cpus()
    first = makes[0]()
    try:
        first.wait_until_ready()
        wait_for_size(first, [first], 6)
        second = makes[1]()
        try:
            second.wait_until_ready()
            wait_for_size(second, [first, second], min(6, int(num_cpus * 4 * 3 / 4)))
            wait_for_size(first, [first, second], int(num_cpus * 4) - min(6, int(num_cpus * 4 * 3 / 4)))
        finally:
            second.close()
        wait_for_size(first, [first], 6)
        monkeypatch.setattr(workers.executor, "REST_S", 0.0)
        wait_for_size(first, [first], 1)
    finally:
        first.close()


def local_cpus() -> int:
    import ray

    return min(2, int(ray.cluster_resources()["CPU"]))


def wait_for_size(one: RayExecutor, all_of_them: list[RayExecutor], size: int, timeout_s: float = 90) -> None:
    deadline = time.monotonic() + timeout_s
    while len(one._ready()) != size:
        assert time.monotonic() < deadline, (size, [len(executor._ready()) for executor in all_of_them])
        for executor in all_of_them:
            executor.poll(0.1)
            executor.idle_workers()
