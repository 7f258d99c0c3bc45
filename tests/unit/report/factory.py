"""Studies made by hand, without a search."""

import random
from pathlib import Path
from typing import Any

from vitsearch.config import JobSpec
from vitsearch.cost import cost_of
from vitsearch.messages import Conditions, Profile, TrialFailure, TrialResult
from vitsearch.report import StudyReport, space_of
from vitsearch.report.figures import all_figures, known_figures, violations
from vitsearch.report.front import front_of
from vitsearch.storage import DataSummary, StudyStore, TrialRecord, database_url, open_engine

DATA = DataSummary(
    fingerprint="f00d",
    class_names=tuple("0123456789"),
    in_chans=1,
    image_size=8,
    mean=(0.3,),
    std=(0.3,),
    num_train=1077,
    num_val=360,
    num_test=360,
    chance_accuracy=0.101,
)


def job(**more: Any) -> JobSpec:
    return JobSpec.model_validate(
        {"name": "digits", "dataset": {"kind": "digits"}, "space": "vit_micro_8", **more}
    )


def new_store(folder: Path, one: JobSpec | None = None) -> StudyStore:
    """An empty study whose lease is held."""
    store = StudyStore.create(open_engine(database_url(folder)), one or job())
    store.acquire()
    store.set_data(DATA)
    return store


def add_trials(store: StudyStore, count: int, *, seed: int = 0, fail_every: int = 0) -> None:
    """Trials with drawn candidates and an accuracy that grows with cost, give or take."""
    study = store.study()
    space, rng, first = space_of(study.job, DATA), random.Random(seed), store.num_trials()
    for number in range(first, first + count):
        draw = {axis.name: rng.choice(axis.values()) for axis in space.dimensions}
        candidate = space.decode(draw)
        cost = cost_of(candidate)
        trial = TrialRecord(
            number=number, state="asked", kind="evaluate", candidate=candidate, cost=cost, draw=draw
        )
        broken = violations(known_figures(cost, study.job), study.job.constraints)
        if broken:
            store.add_trial(
                trial.model_copy(update={"kind": "rejected", "state": "told", "note": "; ".join(broken)})
            )
            continue
        store.add_trial(trial)
        if fail_every and number % fail_every == fail_every - 1:
            failure = TrialFailure(trial=number, stage="train", failure="nan_loss", message="the loss is NaN")
            store.store_outcome(number, failure, known_figures(cost, study.job))
            continue
        accuracy = 0.985 - 0.35 * (0.4 / (0.4 + cost.num_macs / 2e5)) - rng.random() * 0.25 * rng.random()
        result = trial_result(number, accuracy, cost.num_params)
        profiles = {"local": profile(0.1 + cost.num_macs / 1e6)} if study.job.needs_profile else {}
        store.store_outcome(
            number, result, all_figures(cost, result, profiles, study.job), list(profiles.values())
        )
        store.set_told(number)


def add_best(store: StudyStore) -> int:
    """A copy of the last front member under a new number with full accuracy, which pushes that one off."""
    loser = StudyReport.load(store).front[-1]
    number, study = store.num_trials(), store.study()
    store.add_trial(loser.model_copy(update={"number": number, "state": "asked", "outcome": None, "figures": {}}))
    result = trial_result(number, 1.0, loser.cost.num_params)
    store.store_outcome(number, result, all_figures(loser.cost, result, {}, study.job))
    return number


def trial_result(number: int, accuracy: float, num_params: int = 1, **more: Any) -> TrialResult:
    return TrialResult(
        trial=number, accuracy=accuracy, loss=0.3, dense_accuracy=accuracy, epochs_run=6, train_s=2.0, total_s=2.5,
        num_params=num_params, **more,
    )  # fmt: skip


def profile(latency_ms: float, target: str = "local") -> Profile:
    return Profile(
        latency_ms_p50=latency_ms, latency_ms_p95=1.2 * latency_ms, latency_ms_spread=0.05,
        images_per_s=1000 / latency_ms, peak_memory_mb=3.0, file_size_mb=0.2,
        conditions=Conditions(
            target=target, runtime="pytorch 2.15.0", device="a processor", dtype="fp32", batch_size=1, threads=1,
            warmup=5, repeats=30, contended=False,
        ),
    )  # fmt: skip


def finalize(store: StudyStore, accuracy: float = 0.97) -> int:
    """Retrain the knee on paper; returns its number."""
    knee = StudyReport.load(store).knee
    assert knee is not None
    store.store_final(knee.number, trial_result(knee.number, accuracy, split="test"))
    return knee.number


def announce_front(store: StudyStore) -> list[int]:
    """Enqueue what the driver enqueues after a change of the front."""
    members = [trial.number for trial in front_of(store.trials(), store.study().job)]
    store.enqueue("front", {"members": members})
    return members


def report(folder: Path, one: JobSpec | None = None, trials: int = 60, **more: Any) -> StudyReport:
    store = new_store(folder, one)
    add_trials(store, trials, **more)
    return StudyReport.load(store)
