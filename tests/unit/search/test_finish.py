from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.search.factory import fake_profile, make_driver, make_job, make_store, make_study
from vitsearch.messages import ProfileRequest, TrialFailure, TrialRequest, TrialResult
from vitsearch.search import Finisher, InlineExecutor, ProfileDone, Study, WorkerLost, WorkerTaken
from vitsearch.storage import StudyStore
from vitsearch.testing import noop_result


def searched(folder: Path, **job: Any) -> StudyStore:
    """A study whose search is over."""
    store = make_store(folder, make_job(**job))
    make_driver(folder, store).run()
    return store


class Executor(InlineExecutor):
    """Keeps what it was asked to do; loses or forgets the first trials on request."""

    def __init__(self, *, losses: int = 0, hangs: int = 0, taken: int = 0) -> None:
        super().__init__(self.remember, self.measure)
        self.losses, self.hangs, self.taken = losses, hangs, taken
        self.trained: list[TrialRequest] = []
        self.measured: list[tuple[int, str]] = []
        self.restarted: list[str] = []

    def remember(self, request: TrialRequest) -> TrialResult:
        return noop_result(request).model_copy(update={"split": request.split})

    def measure(self, request: ProfileRequest) -> Any:
        self.measured.append((request.trial, request.target.name))
        return fake_profile(request)

    def submit(self, worker: str, request: TrialRequest) -> None:
        self.trained.append(request)
        if self.losses:
            self.losses -= 1
            self._events.append(WorkerLost(worker=worker, trial=request.trial, reason="killed"))
        elif self.taken:
            self.taken -= 1
            self._events.append(WorkerTaken(worker=worker, trial=request.trial))
        elif self.hangs:
            self.hangs -= 1
        else:
            super().submit(worker, request)

    def restart(self, worker: str, reason: str) -> None:
        self.restarted.append(worker)


def finish(store: StudyStore, folder: Path, executor: Executor, **options: Any) -> tuple[Study, list[str]]:
    study = make_study(store)
    return study, Finisher(study, executor, folder, **options).run()


def test_the_front_is_measured_on_every_target_once(tmp_path: Path) -> None:
    store = searched(tmp_path, targets=[{"name": "a"}, {"name": "b"}], final={"retrain": "none"})
    executor = Executor()
    study, problems = finish(store, tmp_path, executor)

    assert not problems
    assert sorted(executor.measured) == sorted((t.number, name) for t in study.front for name in ("a", "b"))
    again = Executor()
    finish(store, tmp_path, again)
    assert not again.measured


def test_a_worker_that_is_taken_away_costs_a_retraining_no_attempt(tmp_path: Path) -> None:
    store = searched(tmp_path, search={"max_retries": 0}, final={"retrain": "knee"})
    executor = Executor(taken=4)
    _, problems = finish(store, tmp_path, executor)
    assert not problems
    assert len(executor.trained) == 5
    assert {request.attempt for request in executor.trained} == {1}


@pytest.mark.parametrize(("retrain", "how_many"), [("none", 0), ("knee", 1), ("front", None)])
def test_winners_train_longer_and_alone_read_the_test_split(
    tmp_path: Path, retrain: str, how_many: int | None
) -> None:
    store = searched(tmp_path, train={"epochs": 2, "autocast": "fp32"}, final={"retrain": retrain})
    executor = Executor()
    study, problems = finish(store, tmp_path, executor)

    assert not problems
    assert len(executor.trained) == (len(study.front) if how_many is None else how_many)
    assert all(request.split == "test" and request.train.epochs == 6 for request in executor.trained)
    assert not any(request.train.early_stop for request in executor.trained)
    if how_many == 1:
        knee = study.knee()
        assert knee is not None
        assert isinstance(knee.final, TrialResult)
        assert knee.final.split == "test"
    again = Executor()
    finish(store, tmp_path, again)
    assert not again.trained, "the test split is read once"


def test_a_retrained_winner_keeps_no_checkpoint(tmp_path: Path) -> None:
    class Trainer(Executor):
        def remember(self, request: TrialRequest) -> TrialResult | TrialFailure:  # type: ignore[override]
            folder = Path(request.artifact_dir)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "epoch.pt").write_bytes(b"weights")
            return super().remember(request)

    store, finals = searched(tmp_path), tmp_path / "artifacts" / "finals"
    finish(store, tmp_path, Trainer())
    (place,) = finals.iterdir()
    assert not list(place.glob("epoch*"))
    (place / "epoch.pt").write_bytes(b"weights")
    finish(store, tmp_path, Executor())
    assert not list(place.glob("epoch*")), "the last driver died before it was tidy"


def test_a_lost_worker_is_tried_again_and_then_reported(tmp_path: Path) -> None:
    store = searched(tmp_path, search={"sampler": "random", "trials": 6, "max_retries": 1})
    executor = Executor(losses=2)
    study, problems = finish(store, tmp_path, executor)

    knee = study.knee()
    assert knee is not None
    assert [request.attempt for request in executor.trained] == [1, 2]
    assert problems == [f"retraining trial {knee.number} failed: killed"]
    assert knee.final is None, "a resume may try again"
    _, problems = finish(store, tmp_path, Executor(losses=1))
    assert not problems


def test_a_store_that_refuses_once_costs_an_attempt_and_no_retraining(tmp_path: Path) -> None:
    class Refused(Executor):
        left = 0

        def remember(self, request: TrialRequest) -> TrialResult | TrialFailure:  # type: ignore[override]
            if not self.left:
                return super().remember(request)
            self.left -= 1
            return TrialFailure(
                trial=request.trial, stage="evaluate", failure="storage", message="slow down", retryable=True
            )

    store = searched(tmp_path, search={"sampler": "random", "trials": 6, "max_retries": 1})
    executor = Refused()
    executor.left = 2
    study, problems = finish(store, tmp_path, executor)
    knee = study.knee()
    assert knee is not None
    assert problems == [f"retraining trial {knee.number} waits for a resume: slow down"]
    assert knee.final is None
    executor.left = 1
    study, problems = finish(store, tmp_path, executor)
    assert not problems
    assert isinstance(study.trials[knee.number].final, TrialResult)


def test_a_retraining_that_hangs_is_given_up(tmp_path: Path) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    store = searched(tmp_path, search={"sampler": "random", "trials": 6, "trial_timeout_s": 30})
    executor = Executor(hangs=1)
    study, problems = finish(store, tmp_path, executor, clock=clock)

    knee = study.knee()
    assert knee is not None
    assert executor.restarted == ["inline"]
    assert isinstance(knee.final, TrialFailure)
    assert knee.final.failure == "timeout"
    assert "raise search.trial_timeout_s" in problems[0]


def test_a_failed_measurement_is_reported_and_the_rest_goes_on(tmp_path: Path) -> None:
    store = searched(tmp_path)
    executor = Executor()

    def refuse(request: ProfileRequest) -> None:
        executor._events.append(
            ProfileDone(trial=request.trial, target=request.target.name, profile=None, reason="it left")
        )

    executor.submit_profile = refuse  # type: ignore[method-assign]
    study, problems = finish(store, tmp_path, executor)

    assert len(problems) == len(study.front)
    assert all("could not be measured on local: it left" in problem for problem in problems)
    knee = study.knee()
    assert knee is not None
    assert isinstance(knee.final, TrialResult)


def test_a_stop_leaves_the_rest_for_a_resume(tmp_path: Path) -> None:
    store = searched(tmp_path)
    study, executor = make_study(store), Executor()
    finisher = Finisher(study, executor, tmp_path)
    finisher.stop_requested = True
    finisher.run()
    assert not executor.trained
    assert all(trial.final is None for trial in study.front)


def test_a_winner_is_retrained_by_the_recipe_of_its_candidate(tmp_path: Path) -> None:
    space = {
        "fixed": {"architecture.image_size": 8, "architecture.depth": 1, "architecture.heads": 1,
                  "architecture.patch_size": 4, "train.mixup": 0.25},
        "dimensions": {"architecture.width": {"choices": [16, 32]}, "train.lr": {"choices": [0.001, 0.003]}},
    }  # fmt: skip
    store = searched(tmp_path, space=space, search={"sampler": "random", "trials": 4}, final={"retrain": "front"})
    executor = Executor()
    finish(store, tmp_path, executor)
    assert executor.trained
    for request in executor.trained:
        assert (request.train.lr, request.train.mixup) == (request.candidate.training.lr, 0.25)
        assert request.train.epochs == 3
