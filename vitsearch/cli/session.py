"""Putting a search together: folder, data, store, Ray, driver, reports. Used by ``run`` and ``resume``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vitsearch.artifacts import workspace
from vitsearch.candidate import Architecture
from vitsearch.config import JobSpec
from vitsearch.errors import InputError, StudyError, first_line
from vitsearch.report import StudyReport, space_of
from vitsearch.space import SearchSpace, resolve_preset
from vitsearch.storage import (
    DatabaseError,
    DataSummary,
    StudyRecord,
    StudyState,
    StudyStore,
)

if TYPE_CHECKING:
    from vitsearch.cli.stopping import Stopping
    from vitsearch.messages import MachineFacts
    from vitsearch.search import Driver, Places
    from vitsearch.tracking import Tracker
    from vitsearch.train.data import ImageData
    from workers import RayExecutor

SAMPLE_IMAGES = 64
DELIVERY_TIMEOUT_S = 60.0
LEAVING_TIMEOUT_S = 3.0
TARGET_ANSWERS_S = 60.0
STOPPING = "stopping: running trials are put back, the front is reported; press Ctrl-C again to stop now"


@dataclass(frozen=True, kw_only=True)
class Display:
    """Where a search shows itself.

    Attributes:
        on_step: Told what happens next, outside the trial loop.
        on_change: Called after each round of the trial loop.
        on_stop: Told, once, that a person stops the search; inside a signal handler.
        on_page: Told how to find out the study's page in MLflow, which may change once the server has answered.
        on_end: Told why the search has ended.
    """

    on_step: Callable[[str], None]
    on_change: Callable[[Driver], None]
    on_stop: Callable[[str], None]
    on_page: Callable[[Callable[[], str]], None] = lambda _: None
    on_end: Callable[[str], None] = lambda _: None


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a search ended.

    Attributes:
        report: What it found.
        reason: Why it ended.
        interrupted: Whether a person stopped it.
        problems: What went wrong on the way without ending it.
    """

    report: StudyReport
    reason: str
    interrupted: bool
    problems: list[str]


def summary_of(data: ImageData) -> DataSummary:
    """What the study remembers of its data."""
    return DataSummary(
        fingerprint=data.fingerprint,
        class_names=data.class_names,
        in_chans=data.in_chans,
        image_size=data.image_size,
        mean=data.mean,
        std=data.std,
        num_train=len(data.train),
        num_val=len(data.val),
        num_test=len(data.test),
        chance_accuracy=data.chance_accuracy,
        skipped=data.skipped,
    )


def load_data(job: JobSpec) -> ImageData:
    """Decode the job's images at the search space's size."""
    from vitsearch.train.data import load_dataset

    size = resolve_preset(job.space).fixed.get("architecture.image_size")
    if not isinstance(size, int):
        raise InputError("is required", field="space.fixed.architecture.image_size", remedy="add it")
    return load_dataset(
        job.dataset, image_size=size, seed=job.seed, on_step=lambda text: print(f"… {text}", file=sys.stderr)
    )


def search(store: StudyStore, out: Path, data: ImageData, display: Display, stopping: Stopping) -> Ended:
    """Drive the study from wherever it stands to its end; Ray must not be running yet.

    Args:
        store: The study.
        out: The run's folder.
        data: Its images.
        display: Where to show what happens.
        stopping: Entered; a first signal ends the search early, with its front reported.

    Raises:
        StudyLockedError: Another driver is alive.
        StudyError: The data is not what the study began with.
    """
    from vitsearch.report.files import write_report_files
    from vitsearch.search import Places, is_scratch

    store.on_wait = display.on_step
    store.acquire()
    state: StudyState = "interrupted"
    tracker: Tracker | None = None
    try:
        study = store.study()
        summary = summary_of(data)
        _check_same_images(study.data, summary)
        store.set_data(summary)
        save_sample(data, Places.of(study.job, out))
        tracker = _tracker(store, study.job, out, display)
        reason, problems, interrupted = _driven(store, study, summary, out, data, display, stopping)
        state = "interrupted" if interrupted else "finished"
        report = StudyReport.load(store)
        if not is_scratch(out):
            problems += write_report_files(report, out)
        if tracker is not None:
            display.on_step("delivering to MLflow")
            if not tracker.close(DELIVERY_TIMEOUT_S, interrupted=interrupted):
                problems.append("MLflow has not taken everything yet; `vitsearch resume` delivers the rest")
        store.release(state)  # last: the next driver delivers, too, and would make every run a second time
    except BaseException:
        _leave(store, tracker, state)
        raise
    display.on_end(reason)
    return Ended(report=report, reason=reason, interrupted=interrupted, problems=problems)


def _check_same_images(begun: DataSummary | None, now: DataSummary) -> None:
    if begun is not None and begun.fingerprint != now.fingerprint:
        raise StudyError(
            f"the images have changed since the study began ({begun.fingerprint} -> {now.fingerprint}); "
            f"restore them, or start a new study"
        )


def _tracker(store: StudyStore, job: JobSpec, out: Path, display: Display) -> Tracker | None:
    """What tells MLflow, at work; None where the job wants none."""
    if not job.tracking.enabled:
        return None
    from vitsearch.tracking import Tracker

    tracker = Tracker(store, out, job.tracking.uri, job.tracking.experiment)
    tracker.start()
    display.on_page(lambda: tracker.page)
    return tracker


def _leave(store: StudyStore, tracker: Tracker | None, state: StudyState) -> None:
    """Give a study back after an error, or to a person who cannot wait: anybody may go on with it at once."""
    store.patience_s = 0.0
    if tracker is not None:
        tracker.close(LEAVING_TIMEOUT_S, interrupted=state == "interrupted")
    with suppress(Exception):  # the database may be what has failed, or another driver has taken over
        before = store.study().state
        store.release(state if before == "running" else before)


def _driven(
    store: StudyStore,
    study: StudyRecord,
    summary: DataSummary,
    out: Path,
    data: ImageData,
    display: Display,
    stopping: Stopping,
) -> tuple[str, list[str], bool]:
    """Search on workers of our own Ray; returns why that ended, what went wrong, and whether a person ended it."""
    from vitsearch.cli.target_checks import check_targets
    from vitsearch.cli.teaching import teach
    from vitsearch.search import Driver, Finisher, Places, Study, asking_recipe, data_seed
    from workers import RayExecutor, SharedData, crew_of, default_workers, local_ray

    job = study.job
    places = Places.of(job, out)
    space = space_of(job, summary)
    workers = job.search.max_workers or default_workers()
    display.on_step("starting workers on Ray")
    image_mb = data.images_NHWC.nbytes // 2**20
    # a name that no node has is most likely wrong in a new study, and in one that goes on a device that is away
    required = [t.name for t in job.targets if study.data is None and t.wait_s is None]
    ray = local_ray(workers=workers, targets=required, object_store_mb=2 * image_mb + 100)
    with stopping.whole(ray):
        crew = crew_of(job.search, f"{job.name} in {out}")
        executor = RayExecutor(
            SharedData.put(data),
            workers=crew.workers, threads=crew.threads, cpus=crew.cpus, gpus=crew.gpus, share=crew.share,
        )  # fmt: skip
        try:
            executor.wait_until_ready(display.on_step)
            display.on_step("asking targets what they can measure")
            check_targets(job, lambda name: _facts_of(name, executor))
            if job.train.autocast == "auto":
                display.on_step("measuring which number format trains fastest here")
                mode = executor.fastest_autocast(_typical(space), job.train.batch_size)
                job = job.model_copy(update={"train": job.train.model_copy(update={"autocast": mode})})
                store.set_job(job)
            answers_seed, asking = data_seed(job, space), asking_recipe(job, space)
            if answers_seed is not None and asking is not None:
                teach(asking, answers_seed, summary.fingerprint, places.root, executor, display.on_step)
            driver = Driver(Study(store, job, space, summary), executor, out, on_change=display.on_change)
            finisher = Finisher(driver.study, executor, out, on_step=display.on_step)

            def stop() -> None:
                driver.request_stop()  # before anything that could fail
                finisher.stop_requested = True
                display.on_stop(STOPPING)

            with stopping.listening(stop):
                reason = driver.run()
                problems = [] if driver.stop_requested else finisher.run()
        finally:
            with stopping.held():
                executor.close()
    return reason, problems, finisher.stop_requested


@contextmanager
def failures_explained(out: Path) -> Iterator[None]:
    """Turn what the machine does to a search (full disk, lost database, lost Ray) into one line and a remedy.

    Raises:
        StudyError: Instead of the machine's own error; what was stored until then is safe.
    """
    from ray.exceptions import RayError

    from vitsearch.search import resume_command

    again = f"mend that, then: {resume_command(out)}"
    try:
        yield
    except DatabaseError as error:
        reason = first_line(getattr(error, "orig", None) or error)
        raise StudyError(f"the study's database failed ({reason}); nothing stored is lost; {again}") from error
    except RayError as error:
        raise StudyError(f"Ray failed ({first_line(error)}); {again}") from error
    except OSError as error:
        raise StudyError(f"{error.filename or out}: {error.strerror or error}; {again}") from error


def save_sample(data: ImageData, places: Places) -> None:
    """Keep some validation images beside the study: an export is checked on them, wherever the data is by then."""
    import numpy as np

    from vitsearch.search import SAMPLE_FILE

    with workspace(places.root, fetch=()) as place:
        place.folder.mkdir(parents=True, exist_ok=True)
        np.save(place.folder / SAMPLE_FILE, data.images_NHWC[data.val[:SAMPLE_IMAGES]], allow_pickle=False)
        place.publish(SAMPLE_FILE)


def _facts_of(target: str, executor: RayExecutor) -> MachineFacts | None:
    """What a target's machine can measure; the driver's own answers for itself, without a process there."""
    from vitsearch.profile.facts import machine_facts
    from workers import OWN_TARGET

    return machine_facts() if target == OWN_TARGET else executor.facts_of(target, TARGET_ANSWERS_S)


def _typical(space: SearchSpace) -> Architecture:
    """An architecture in the upper half of a space, where training time is spent."""
    draw = {axis.name: axis.values()[-1 - len(axis.values()) // 4] for axis in space.dimensions}
    return space.decode(draw).architecture
