"""Studies small enough to run in a test, on the real store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vitsearch.config import JobSpec
from vitsearch.messages import (
    Conditions,
    Profile,
    ProfileRequest,
    TrialFailure,
    TrialRequest,
    TrialResult,
)
from vitsearch.report import space_of
from vitsearch.search import Driver, InlineExecutor, Study
from vitsearch.storage import DataSummary, StudyStore, database_url, open_engine
from vitsearch.testing import noop_result

DATA = DataSummary(
    fingerprint="f" * 16,
    class_names=tuple("0123456789"),
    in_chans=1,
    image_size=8,
    mean=(0.3,),
    std=(0.4,),
    num_train=100,
    num_val=50,
    num_test=50,
    chance_accuracy=0.12,
)
Run = Callable[[TrialRequest], TrialResult | TrialFailure]


def make_job(**overrides: Any) -> JobSpec:
    base: dict[str, Any] = {
        "name": "test",
        "dataset": {"kind": "digits"},
        "space": "vit_micro_8",
        "search": {"sampler": "random", "trials": 10},
        "train": {"epochs": 1, "autocast": "fp32"},
        "tracking": {"enabled": False},
        "seed": 1,
    }
    return JobSpec.model_validate({**base, **overrides})


def make_store(folder: Path, job: JobSpec) -> StudyStore:
    store = StudyStore.create(open_engine(database_url(folder)), job)
    store.acquire()
    store.set_data(DATA)
    return store


def make_study(store: StudyStore) -> Study:
    job = store.study().job
    return Study(store, job, space_of(job, DATA), DATA)


def fake_profile(request: ProfileRequest) -> Profile:
    millis = 1.0 + request.trial
    return Profile(
        latency_ms_p50=millis,
        latency_ms_p95=millis,
        latency_ms_spread=0.0,
        images_per_s=1000 / millis,
        peak_memory_mb=1.0,
        file_size_mb=1.0,
        conditions=Conditions(
            target=request.target.name,
            runtime="fake",
            device="fake",
            dtype="float32",
            batch_size=1,
            threads=1,
            warmup=0,
            repeats=3,
            contended=False,
        ),
    )


def make_driver(folder: Path, store: StudyStore, run: Run = noop_result, **options: Any) -> Driver:
    return Driver(make_study(store), InlineExecutor(run, fake_profile), folder, **options)
