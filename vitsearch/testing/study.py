"""A study on the real store, driven for real, of trials that cost nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from vitsearch.config import JobSpec
from vitsearch.messages import Profile, ProfileRequest, TrialFailure, TrialRequest, TrialResult
from vitsearch.report import space_of
from vitsearch.search import Driver, Executor, InlineExecutor, Study
from vitsearch.storage import DataSummary, StudyStore, database_url, open_engine
from vitsearch.testing.noop import noop_profile, noop_result


def noop_data(*, image_size: int = 8, in_chans: int = 1, num_classes: int = 10) -> DataSummary:
    """What a study knows about a data set that does not exist."""
    return DataSummary(
        fingerprint="0" * 16,
        class_names=tuple(str(i) for i in range(num_classes)),
        in_chans=in_chans,
        image_size=image_size,
        mean=(0.5,) * in_chans,
        std=(0.5,) * in_chans,
        num_train=100,
        num_val=50,
        num_test=50,
        chance_accuracy=1 / num_classes,
    )


def noop_driver(
    folder: Path,
    job: JobSpec,
    *,
    data: DataSummary | None = None,
    run: Callable[[TrialRequest], TrialResult | TrialFailure] = noop_result,
    profile: Callable[[ProfileRequest], Profile] = noop_profile,
    executor: Executor | None = None,
    on_change: Callable[[Driver], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> Driver:
    """A driver of a new study, ready to ``run()``.

    Args:
        folder: Where the study's SQLite file goes.
        job: What to search.
        data: By default ``noop_data()``.
        run: Turns requests into outcomes.
        profile: Turns profile requests into profiles.
        executor: In place of an inline one with ``run`` and ``profile``.
        on_change: Called after each round of the driver's loop.
        clock: Seconds from any fixed point.
    """
    data = data or noop_data()
    store = StudyStore.create(open_engine(database_url(folder)), job)
    store.acquire()
    store.set_data(data)
    study = Study(store, job, space_of(job, data), data)
    executor = executor or InlineExecutor(run, profile)
    return Driver(study, executor, folder, on_change=on_change, clock=clock)
