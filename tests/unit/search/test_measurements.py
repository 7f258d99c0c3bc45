"""What is measured once is known ever after, as far as it is the same."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.unit.search.factory import DATA, make_job
from vitsearch.config import TargetSpec
from vitsearch.messages import Conditions, MachineFacts, Profile, ProfileRequest, RuntimeFacts
from vitsearch.report import space_of
from vitsearch.search import Driver, Finisher, InlineExecutor, Study
from vitsearch.storage import StudyStore, database_url, open_engine
from vitsearch.testing import noop_result

FACTS = MachineFacts(
    host="desk", processor="x", num_processors=2, memory_mb=1.0, python="3",
    runtimes={
        "pytorch": RuntimeFacts(version="2.0", precisions=("float32",)),
        "onnxruntime": RuntimeFacts(version="1.0", precisions=("float32",)),
    },
)  # fmt: skip


class Bench(InlineExecutor):
    """Measures every runtime that it is asked for and counts."""

    def __init__(self, facts: MachineFacts | None = FACTS, **conditions: Any) -> None:
        super().__init__(noop_result, self.measure)
        self.facts, self.conditions = facts, conditions
        self.measured: list[tuple[int, str]] = []
        self.energy_mj: float | None = None

    def facts_of(self, target: str, wait_s: float = 0.0) -> MachineFacts | None:
        return self.facts

    def measure(self, request: ProfileRequest) -> Profile:
        known = {one.conditions.runtime.partition(" ")[0] for one in request.known}
        names = [name for name in request.target.runtimes if name not in known]
        self.measured += [(request.trial, name) for name in names]
        facts = self.facts or FACTS
        found = [self.one(request, name, facts) for name in names]
        return found[0].model_copy(update={"others": (*found[1:], *request.known)})

    def one(self, request: ProfileRequest, name: str, facts: MachineFacts) -> Profile:
        library = name.partition("_")[0]
        conditions = Conditions(
            target=request.target.name, runtime=f"{name} {facts.runtimes[library].version}", device="x",
            dtype="float32", batch_size=request.target.batch_size, threads=1, warmup=0, repeats=3,
            contended=False, machine=facts.fingerprint,
        ).model_copy(update=self.conditions)  # fmt: skip
        ms = 1.0 + len(self.measured)
        return Profile(
            latency_ms_p50=ms, latency_ms_p95=ms, latency_ms_spread=0.0, images_per_s=1000 / ms,
            peak_memory_mb=1.0, file_size_mb=1.0, conditions=conditions, energy_mj=self.energy_mj,
        )  # fmt: skip


def search(folder: Path, name: str, bench: Bench, **overrides: Any) -> Study:
    """A study of its own in one database for all."""
    job = make_job(**{"name": name, "objectives": ["accuracy", "latency"], **overrides})
    folder.mkdir(exist_ok=True)
    store = StudyStore.create(open_engine(database_url(folder)), job)
    store.acquire()
    store.set_data(DATA)
    study = Study(store, job, space_of(job, DATA), DATA)
    Driver(study, bench, folder).run()
    Finisher(study, bench, folder).run()
    return study


def target(**settings: Any) -> dict[str, Any]:
    return {"targets": [TargetSpec.model_validate({"runtime": "onnxruntime", **settings}).model_dump()]}


def test_a_second_study_measures_nothing_again(tmp_path: Path) -> None:
    first, second = Bench(), Bench()
    one = search(tmp_path, "a", first, **target(also=["pytorch"]))
    assert len(first.measured) == 2 * 10
    two = search(tmp_path, "b", second, **target(also=["pytorch"]))
    assert second.measured == []
    for number, trial in two.trials.items():
        assert trial.profiles["local"].conditions.reused
        assert not one.trials[number].profiles["local"].conditions.reused
        assert trial.figures == one.trials[number].figures
        assert len(trial.profiles["local"].others) == 1


def test_a_runtime_that_is_new_is_measured_alone(tmp_path: Path) -> None:
    search(tmp_path, "a", Bench(), **target())
    second = Bench()
    study = search(tmp_path, "b", second, **target(also=["pytorch"]))
    assert {name for _, name in second.measured} == {"pytorch"}
    trial = study.trials[0].profiles["local"]
    assert {one.conditions.runtime for one in (trial, *trial.others)} == {"onnxruntime 1.0", "pytorch 2.0"}


@pytest.mark.parametrize(
    ("facts", "settings"),
    [
        (FACTS.model_copy(update={"processor": "y"}), {}),
        (FACTS.model_copy(update={"runtimes": {"onnxruntime": RuntimeFacts(version="1.1", precisions=())}}), {}),
        (FACTS, {"batch_size": 2}),
        (FACTS, {"threads": 2}),
        (FACTS, {"repeats": 50}),
        (None, {}),
    ],
    ids=["processor", "version", "batch", "threads", "repeats", "not told"],
)
def test_what_was_measured_otherwise_is_measured_again(
    facts: MachineFacts | None, settings: dict[str, Any], tmp_path: Path
) -> None:
    search(tmp_path, "a", Bench(), **target())
    second = Bench(facts)
    search(tmp_path, "b", second, **target(**settings))
    assert len(second.measured) == 10


@pytest.mark.parametrize("disturbed", [{"contended": True}, {"throttled": True}, {"machine": ""}], ids=str)
def test_what_was_disturbed_is_not_kept(disturbed: dict[str, Any], tmp_path: Path) -> None:
    search(tmp_path, "a", Bench(**disturbed), **target())
    second = Bench()
    search(tmp_path, "b", second, **target())
    assert len(second.measured) == 10


def test_where_answers_depend_on_the_weights_others_figures_do_not_count(tmp_path: Path) -> None:
    """bfloat16 is scored by its own answers, and two trainings of a candidate answer differently."""

    def trained(checksum: str) -> Bench:
        bench = Bench()
        bench._run = lambda request: noop_result(request).model_copy(update={"weights_sha256": checksum})
        return bench

    job = target(runtime="pytorch_bf16")
    search(tmp_path, "a", trained("one"), **job)
    again, other = trained("one"), trained("two")
    search(tmp_path, "b", again, **job)
    search(tmp_path, "c", other, **job)
    assert again.measured == []
    assert len(other.measured) == 10


def test_the_front_takes_what_is_known_on_a_further_target(tmp_path: Path) -> None:
    more = {"targets": [{"runtime": "onnxruntime"}, {"name": "desk", "runtime": "onnxruntime", "batch_size": 8}]}
    first, second = Bench(), Bench()
    one = search(tmp_path, "a", first, **more)
    assert len(first.measured) == 10 + len(one.front)
    two = search(tmp_path, "b", second, **more)
    assert second.measured == []
    assert all(trial.profiles["desk"].conditions.target == "desk" for trial in two.front)


def test_a_resume_that_knows_a_figure_tells_repetitions_too(tmp_path: Path) -> None:
    """The last driver died between a result and its measurement, which another study has made meanwhile."""
    first = search(tmp_path, "a", Bench(), **target()).trials[0]
    job = make_job(
        name="b", objectives=["accuracy", "latency"], search={"sampler": "random", "trials": 1}, **target()
    )
    store = StudyStore.create(open_engine(database_url(tmp_path)), job)
    store.acquire()
    store.set_data(DATA)
    store.add_trial(first.model_copy(update={"state": "asked"}))
    assert first.outcome is not None
    store.store_outcome(0, first.outcome, {})
    store.add_trial(first.model_copy(update={"number": 1, "kind": "duplicate", "state": "told", "same_as": 0}))
    bench = Bench()
    driver = Driver(Study(store, job, space_of(job, DATA), DATA), bench, tmp_path)
    assert driver._asker._running == {}
    assert driver.run() == "trial budget used"
    assert bench.measured == []


def test_a_figure_that_cannot_be_read_is_measured_again(tmp_path: Path) -> None:
    study = search(tmp_path, "a", Bench(), **target())
    with sqlite3.connect(tmp_path / "study.db") as connection:
        connection.execute("UPDATE measurements SET profile = '{}'")
    connection.close()
    again = Bench()
    search(tmp_path, "b", again, **target())
    assert len(again.measured) == len(study.trials)


def test_a_figure_without_energy_is_measured_again_where_energy_is_counted_by_now(tmp_path: Path) -> None:
    search(tmp_path, "a", Bench(), **target())
    counting = FACTS.model_copy(update={"energy": {"cpu": "rapl"}})
    second, third = Bench(counting), Bench(counting)
    second.energy_mj = 2.0
    job = target() | {"objectives": ["accuracy", "energy"]}
    study = search(tmp_path, "b", second, **job)
    assert len(second.measured) == 10
    assert study.front
    assert search(tmp_path, "c", third, **job).front
    assert third.measured == []


@pytest.mark.parametrize(
    "needing",
    [{"objectives": ["accuracy", "energy"]}, {"constraints": [{"metric": "energy", "max": 5}]}],
    ids=["objective", "constraint"],
)
def test_a_trial_without_the_energy_that_is_needed_says_why(needing: dict[str, Any], tmp_path: Path) -> None:
    study = search(tmp_path, "a", Bench(), **target(), **needing)
    reused = search(tmp_path, "b", Bench(), **target(), **needing)
    for one in (study, reused):
        assert one.front == []
        assert one.counts()["failed"] == 10
        why = "local told no energy: it has no energy counter that can be read, or one that did not move"
        assert {trial.unmeasured for trial in one.store.trials() if trial.succeeded} == {why}
