"""What the study in memory keeps up as it goes, against what the stored trials say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.unit.search.factory import make_driver, make_job, make_store, make_study
from tests.unit.search.test_measured_cost import SPACE, measured
from vitsearch.report import StudyReport
from vitsearch.report.front import reference_of
from vitsearch.storage import TrialRecord


class AskedByNumber(dict[int, TrialRecord]):
    """Trials that nobody may walk through."""

    def __iter__(self) -> Iterator[int]:
        self._walk()

    def values(self) -> Any:
        self._walk()

    def items(self) -> Any:
        self._walk()

    def _walk(self) -> NoReturn:
        raise AssertionError("all trials were walked through")


@pytest.mark.parametrize(
    "objectives", [["accuracy", "eer"], ["accuracy", "latency"], ["throughput", "accuracy", "macs"]]
)
def test_a_headline_walks_through_no_trials(objectives: list[str], tmp_path: Path) -> None:
    """It is drawn whenever one ends, and in a terminal far more often."""
    store = make_store(tmp_path, make_job(objectives=objectives))
    driver = make_driver(tmp_path, store)
    driver.run()
    driver.study.trials = AskedByNumber(driver.study.trials)
    progress = driver.progress()
    assert progress.ended == 10
    assert progress.hypervolume == pytest.approx(StudyReport.load(store).hypervolume)


@pytest.mark.parametrize("begun_anew", [False, True])
def test_the_hypervolume_ends_where_all_trials_say(begun_anew: bool, tmp_path: Path) -> None:
    job = make_job(space=SPACE, objectives=["accuracy", "macs", "latency", "throughput"])
    store = make_store(tmp_path, job)
    driver = make_driver(tmp_path, store, measured)
    driver.run()
    study = make_study(store) if begun_anew else driver.study
    assert study.reference() == reference_of(job, study.space, study.data, study.trials.values())


def test_a_worst_measurement_that_was_made_again_is_not_the_worst_any_more(tmp_path: Path) -> None:
    job = make_job(objectives=["accuracy", "latency"])
    driver = make_driver(tmp_path, make_store(tmp_path, job))
    driver.run()
    study = driver.study
    slowest = max(study.trials.values(), key=lambda trial: trial.figures.get("latency_ms_p50", 0.0))
    before = study.reference()[1]
    profile = slowest.profiles["local"].model_copy(update={"latency_ms_p50": 0.5})
    study.store_profile(slowest.number, profile)
    assert study.reference()[1] < before
    assert study.reference() == reference_of(job, study.space, study.data, study.trials.values())
