from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.unit.search.factory import DATA, fake_profile, make_driver, make_job, make_store, make_study
from vitsearch.candidate import Candidate
from vitsearch.errors import StudyError, StudyLockedError
from vitsearch.messages import ProfileRequest, TrialFailure, TrialRequest, TrialResult
from vitsearch.report import StudyReport, violations
from vitsearch.report.tables import fate
from vitsearch.search import (
    Driver,
    Event,
    InlineExecutor,
    ProfileDone,
    TrialDone,
    WorkerLost,
    WorkerRests,
    WorkerTaken,
)
from vitsearch.search import driver as driver_module
from vitsearch.storage import StudyStore, database_url, open_engine
from vitsearch.testing import noop_result

TINY_SPACE = {
    "fixed": {
        "architecture.image_size": 8,
        "architecture.depth": 1,
        "architecture.heads": 1,
        "architecture.patch_size": 4,
    },
    "dimensions": {"architecture.width": {"choices": [16, 32, 48]}},
}


def test_trains_exactly_the_budget_and_tells_each_trial_once(tmp_path: Path) -> None:
    store = make_store(tmp_path, make_job())
    driver = make_driver(tmp_path, store)

    assert driver.run() == "trial budget used"

    trials = store.trials()
    assert sum(t.kind == "evaluate" for t in trials) == 10
    assert {t.state for t in trials} == {"told"}
    assert [t.number for t in trials] == list(range(len(trials)))
    told = driver._asker.study.get_trials(deepcopy=False)
    assert Counter(t.state.name for t in told) == {"COMPLETE": len(trials)}


def test_a_candidate_that_breaks_a_known_constraint_is_never_trained(tmp_path: Path) -> None:
    job = make_job(constraints=[{"metric": "params", "max": 30_000}])
    trained: list[Candidate] = []

    def run(request: TrialRequest) -> TrialResult:
        trained.append(request.candidate)
        return noop_result(request)

    store = make_store(tmp_path, job)
    driver = make_driver(tmp_path, store, run)
    driver.run()

    trials = store.trials()
    rejected = [t for t in trials if t.kind == "rejected"]
    assert rejected
    assert len(trained) == 10  # rejections do not use the budget
    assert all("parameters" in t.note for t in rejected)
    assert all(t.cost.num_params <= 30_000 for t in trials if t.kind == "evaluate")
    frozen = driver._asker.study.get_trials(deepcopy=False)[rejected[0].number]
    assert frozen.values[0] == DATA.chance_accuracy
    assert any(value > 0 for key, value in frozen.system_attrs.items() if key.startswith("constraints"))
    assert not violations(driver.study.front[0].figures, job.constraints)


def test_repeats_are_told_but_not_trained_and_an_exhausted_space_ends_the_study(tmp_path: Path) -> None:
    trained: list[str] = []

    def run(request: TrialRequest) -> TrialResult:
        trained.append(request.candidate.hash)
        return noop_result(request)

    store = make_store(tmp_path, make_job(space=TINY_SPACE))
    driver = make_driver(tmp_path, store, run)

    assert driver.run() == "space exhausted"
    assert sorted(trained) == sorted(set(trained))
    assert len(trained) == 3
    repeats = [t for t in store.trials() if t.kind == "duplicate"]
    assert len(repeats) >= 200
    told = driver._asker.study.get_trials(deepcopy=False)
    assert all(told[t.number].values == told[t.same_as].values for t in repeats if t.same_as is not None)


def test_a_failure_of_a_candidate_is_data(tmp_path: Path) -> None:
    def run(request: TrialRequest) -> TrialResult | TrialFailure:
        if request.trial % 2:
            return TrialFailure(trial=request.trial, stage="train", failure="nan_loss", message="the loss is NaN")
        return noop_result(request)

    store = make_store(tmp_path, make_job())
    driver = make_driver(tmp_path, store, run)
    driver.run()

    failed = [t for t in store.trials() if isinstance(t.outcome, TrialFailure)]
    assert len(failed) == 5
    assert all(t.attempts == 1 for t in failed)
    assert not {t.number for t in failed} & {t.number for t in driver.study.front}
    assert driver.study.counts()["failed"] == 5


@pytest.mark.parametrize("failure", ["nan_loss", "out_of_memory", "timeout", "worker_lost"])
def test_the_sampler_learns_what_a_candidate_came_to(tmp_path: Path, failure: str) -> None:
    """Told as FAIL, or as feasible, a sampler would go on into the corner that fails."""

    def run(request: TrialRequest) -> TrialResult | TrialFailure:
        if request.trial % 2:
            return TrialFailure(trial=request.trial, stage="train", failure=failure, message="no")
        return noop_result(request)

    driver = make_driver(tmp_path, make_store(tmp_path, make_job()), run)
    driver.run()
    optunas = driver._asker.study.get_trials(deepcopy=False)
    for trial in driver.study.trials.values():
        told = optunas[trial.number]
        assert told.state.name == "COMPLETE"
        fails = isinstance(trial.outcome, TrialFailure)
        assert (told.constraints["violation"] > 0) == fails
        if fails:
            assert told.values == driver.study.told_values(trial)[0]
            assert told.values[0] == DATA.chance_accuracy
    assert any(isinstance(trial.outcome, TrialFailure) for trial in driver.study.trials.values())


TAUGHT_SPACE = {
    "fixed": {**TINY_SPACE["fixed"], "architecture.width": 16, "train.weight_decay": 0.2},
    "dimensions": {
        "train.lr": {"choices": [0.001, 0.003]},
        "train.distill.method": {"choices": ["none", "soft", "hard"]},
    },
}


@pytest.mark.parametrize("cache", [True, False])
def test_a_trial_has_the_recipe_of_its_candidate(tmp_path: Path, cache: bool) -> None:
    train = {"epochs": 1, "autocast": "fp32", "distill": {"teacher": {"timm": "test_vit"}, "cache": cache}}
    job = make_job(space=TAUGHT_SPACE, train=train, search={"sampler": "random", "trials": 6})
    requests: list[TrialRequest] = []

    def run(request: TrialRequest) -> TrialResult:
        requests.append(request)
        return noop_result(request)

    make_driver(tmp_path, make_store(tmp_path, job), run).run()

    assert len({(r.train.lr, r.train.distill.method) for r in requests}) == 6, (
        "equal models, each trained its own way"
    )
    for request in requests:
        own = request.candidate.training.settings
        assert (request.train.lr, request.train.distill.method) == (own["lr"], own["distill.method"])
        assert (request.train.weight_decay, request.train.epochs) == (0.2, 1)
    seeds = {r.data_seed for r in requests}
    assert len(seeds) == 1
    assert (seeds == {None}) == (not cache), "all see the same batches where the answers are asked once"


class LosingExecutor(InlineExecutor):
    """Loses its worker on every first attempt at the trials named."""

    def __init__(self, losses: dict[int, int]) -> None:
        super().__init__(noop_result, fake_profile)
        self.losses = losses
        self.submitted: list[int] = []

    def submit(self, worker: str, request: TrialRequest) -> None:
        self.submitted.append(request.trial)
        if self.losses.get(request.trial, 0) > 0:
            self.losses[request.trial] -= 1
            self._events.append(WorkerLost(worker=worker, trial=request.trial, reason="killed"))
        else:
            super().submit(worker, request)


def test_a_lost_worker_costs_an_attempt_and_then_the_trial(tmp_path: Path) -> None:
    store = make_store(tmp_path, make_job(search={"sampler": "random", "trials": 4, "max_retries": 2}))
    executor = LosingExecutor({0: 2, 1: 3})
    Driver(make_study(store), executor, tmp_path).run()

    trials = {t.number: t for t in store.trials()}
    assert trials[0].succeeded
    assert trials[0].attempts == 3
    assert isinstance(trials[1].outcome, TrialFailure)
    assert trials[1].outcome.failure == "worker_lost"
    assert executor.submitted.count(1) == 3


def test_the_counts_that_are_kept_are_those_of_the_trials(tmp_path: Path) -> None:
    job = make_job(
        search={"sampler": "random", "trials": 8, "max_retries": 1},
        constraints=[{"metric": "params", "max": 60_000}],
    )
    driver = Driver(make_study(make_store(tmp_path, job)), LosingExecutor({1: 1, 3: 9, 5: 9}), tmp_path)
    seen: list[Counter[str]] = []

    def compare(driver: Driver) -> None:
        seen.append(driver.study.counts())
        assert seen[-1] == Counter(fate(trial, job) for trial in driver.study.trials.values())

    driver._on_change = compare
    driver.run()
    compare(driver)
    assert {"done", "failed", "rejected"} <= seen[-1].keys()
    assert driver.study.num_ended() == 8


class CrowdedExecutor(LosingExecutor):
    """Has to make room, as often as asked, while it runs the trials named."""

    def submit(self, worker: str, request: TrialRequest) -> None:
        super().submit(worker, request)
        if isinstance(self._events[-1], WorkerLost):
            self._events[-1] = WorkerTaken(worker=worker, trial=request.trial)


def test_a_worker_that_is_taken_away_costs_no_attempt(tmp_path: Path) -> None:
    store = make_store(tmp_path, make_job(search={"sampler": "random", "trials": 3, "max_retries": 0}))
    executor = CrowdedExecutor({0: 5})
    driver = Driver(make_study(store), executor, tmp_path)
    driver.run()

    trials = {t.number: t for t in store.trials()}
    assert executor.submitted.count(0) == 6
    assert all(trial.succeeded for trial in trials.values() if trial.kind == "evaluate")
    assert trials[0].attempts == 1
    assert not driver.running


class HangingExecutor(InlineExecutor):
    """Never finishes trial 0."""

    def __init__(self) -> None:
        super().__init__(noop_result, fake_profile)
        self.busy: set[str] = set()
        self.restarted: list[str] = []

    def idle_workers(self) -> list[str]:
        return [name for name in ("a", "b") if name not in self.busy]

    def submit(self, worker: str, request: TrialRequest) -> None:
        if request.trial == 0:
            self.busy.add(worker)
        else:
            super().submit(worker, request)

    def restart(self, worker: str, reason: str) -> None:
        self.restarted.append(worker)
        self.busy.discard(worker)


def test_a_trial_that_hangs_is_given_up(tmp_path: Path) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    job = make_job(search={"sampler": "random", "trials": 3, "trial_timeout_s": 30})
    store = make_store(tmp_path, job)
    executor = HangingExecutor()
    Driver(make_study(store), executor, tmp_path, clock=clock).run()

    first = store.trials()[0]
    assert isinstance(first.outcome, TrialFailure)
    assert first.outcome.failure == "timeout"
    assert len(executor.restarted) == 1


class RestingExecutor(HangingExecutor):
    """Its first worker rests for a long while and then goes on; its second one hangs."""

    def __init__(self, polls: int) -> None:
        super().__init__()
        self.polls_left = polls
        self.resting: TrialRequest | None = None

    def submit(self, worker: str, request: TrialRequest) -> None:
        self.busy.add(worker)
        if worker == "a":
            self.resting = request

    def poll(self, timeout_s: float) -> list[Event]:
        if self.resting is None:
            return []
        if self.polls_left:
            self.polls_left -= 1
            return [WorkerRests(worker="a")]
        request, self.resting = self.resting, None
        self.busy.discard("a")
        return [TrialDone(worker="a", outcome=noop_result(request))]


def test_a_worker_that_rests_does_not_hang_and_one_beside_it_does(tmp_path: Path) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    store = make_store(tmp_path, make_job(search={"sampler": "random", "trials": 2, "trial_timeout_s": 30}))
    executor = RestingExecutor(polls=100)
    Driver(make_study(store), executor, tmp_path, clock=clock).run()

    assert executor.restarted == ["b"]
    first, second = (trial.outcome for trial in store.trials())
    assert isinstance(first, TrialResult)
    assert isinstance(second, TrialFailure)
    assert second.failure == "timeout"


def test_a_measured_objective_is_measured_before_the_sampler_is_told(tmp_path: Path) -> None:
    store = make_store(tmp_path, make_job(objectives=["accuracy", "latency"]))
    driver = make_driver(tmp_path, store)
    driver.run()

    trials = [t for t in store.trials() if t.kind == "evaluate"]
    assert all(t.figures["latency_ms_p50"] == 1.0 + t.number for t in trials)
    told = driver._asker.study.get_trials(deepcopy=False)
    assert all(told[t.number].values[1] == 1.0 + t.number for t in trials)


def test_what_breaks_a_constraint_is_told_as_bad_as_the_worst_that_was_measured(tmp_path: Path) -> None:
    constraints = [{"metric": "params", "max": 40_000}]
    job = make_job(objectives=["accuracy", "latency"], constraints=constraints)
    store = make_store(tmp_path, job)
    driver = make_driver(tmp_path, store)
    driver.run()
    trials = store.trials()
    assert any(trial.kind == "rejected" for trial in trials)
    worst, told = 0.0, driver._asker.study.get_trials(deepcopy=False)
    for trial in trials:
        if trial.kind == "rejected" and worst:
            assert told[trial.number].values[1] == worst
        worst = max(worst, trial.figures.get("latency_ms_p50", 0.0))
    again = make_study(store)
    rejected = next(trial for trial in trials if trial.kind == "rejected")
    assert again.told_values(rejected)[0][1] == worst


@pytest.mark.parametrize(
    ("method", "calls"),
    [("lease_trial", 4), ("store_outcome", 4), ("set_told", 4), ("add_trial", 5)],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_driver_killed_at_any_step_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, calls: int, when: str
) -> None:
    class Killed(BaseException):
        pass

    store = make_store(tmp_path, make_job())
    original, seen = getattr(store, method), [0]

    def dying(*args: object, **kwargs: object) -> object:
        seen[0] += 1
        if seen[0] == calls and when == "before":
            raise Killed
        result = original(*args, **kwargs)
        if seen[0] == calls:
            raise Killed
        return result

    monkeypatch.setattr(store, method, dying)
    with pytest.raises(Killed):
        make_driver(tmp_path, store).run()
    before = {t.number: t.outcome for t in store.trials() if t.outcome is not None}

    trained: list[int] = []

    def run(request: TrialRequest) -> TrialResult:
        trained.append(request.trial)
        return noop_result(request)

    again = StudyStore.find(open_engine(database_url(tmp_path)))
    again.acquire()
    driver = make_driver(tmp_path, again, run)
    driver.run()

    trials = again.trials()
    assert sum(t.kind == "evaluate" for t in trials) == 10
    assert {t.state for t in trials} == {"told"}
    assert not set(trained) & set(before)  # nothing is trained twice
    assert all(trials[n].outcome == outcome for n, outcome in before.items())
    told = driver._asker.study.get_trials(deepcopy=False)
    assert Counter(t.state.name for t in told) == {"COMPLETE": len(trials)}
    with pytest.raises(StudyLockedError):
        store.renew(0.0)  # the first driver, were it still alive, can write no more


class PausedExecutor(InlineExecutor):
    """Accepts trials and never ends them."""

    def idle_workers(self) -> list[str]:
        return ["a", "b"]

    def submit(self, worker: str, request: TrialRequest) -> None:
        pass

    def poll(self, timeout_s: float) -> list[Event]:
        return []


def test_a_stop_puts_running_trials_back_without_costing_an_attempt(tmp_path: Path) -> None:
    store = make_store(tmp_path, make_job())
    driver = Driver(make_study(store), PausedExecutor(noop_result), tmp_path, on_change=lambda d: d.request_stop())

    assert driver.run() == "stopped"
    assert [(t.state, t.attempts) for t in store.trials()] == [("asked", 0), ("asked", 0)]

    driver = make_driver(tmp_path, store)
    driver.run()
    assert sum(t.kind == "evaluate" for t in store.trials()) == 10


def test_a_late_second_outcome_changes_nothing(tmp_path: Path) -> None:
    store = make_store(tmp_path, make_job(search={"sampler": "random", "trials": 1}))
    driver = make_driver(tmp_path, store)
    driver.run()
    first = store.trials()[0].outcome

    driver._handle(
        TrialDone(
            worker="ghost",
            outcome=TrialFailure(trial=0, stage="train", failure="nan_loss", message="late"),
        )
    )

    assert store.trials()[0].outcome == first


def test_a_time_budget_ends_the_search(tmp_path: Path) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    job = make_job(search={"sampler": "random", "trials": 1000, "time_limit_s": 60})
    store = make_store(tmp_path, job)

    assert make_driver(tmp_path, store, clock=clock).run() == "time budget used"
    assert 0 < len(store.trials()) < 60


def test_only_weights_of_the_front_are_kept(tmp_path: Path) -> None:
    def run(request: TrialRequest) -> TrialResult:
        folder = Path(request.artifact_dir)
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"weights")
        return noop_result(request)

    store = make_store(tmp_path, make_job())
    driver = make_driver(tmp_path, store, run)
    driver.run()

    kept = {int(path.parent.name) for path in tmp_path.glob("artifacts/trials/*/model.safetensors")}
    assert kept == {t.number for t in driver.study.front}


def with_checkpoint(request: TrialRequest) -> TrialResult:
    folder = Path(request.artifact_dir)
    folder.mkdir(parents=True)
    for name in ("model.safetensors", "epoch.pt", "epoch-1.pt"):
        (folder / name).write_bytes(b"weights")
    return noop_result(request)


def test_checkpoints_stay_until_the_result_is_stored(tmp_path: Path) -> None:
    store = make_store(tmp_path, make_job())
    driver = make_driver(tmp_path, store, with_checkpoint)
    kept: list[bool] = []
    keep = driver.study.store_outcome

    def look(number: int, outcome: TrialResult | TrialFailure) -> bool:
        kept.append((Path(driver.places.trial(number)) / "epoch.pt").is_file())
        return keep(number, outcome)

    driver.study.store_outcome = look  # type: ignore[method-assign]
    driver.run()
    assert kept == [True] * 10
    assert not list(tmp_path.glob("artifacts/trials/*/epoch*.pt"))

    left = Path(driver.places.trial(driver.study.front[0].number)) / "epoch.pt"
    left.write_bytes(b"weights")
    make_driver(tmp_path, store)
    assert not left.exists(), "the last driver died before it was tidy"


def test_files_that_cannot_be_deleted_end_no_search_and_the_next_driver_deletes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(place: str) -> None:
        raise OSError("slow down")

    store = make_store(tmp_path, make_job())
    with monkeypatch.context() as patched:
        patched.setattr(driver_module, "discard", refuse)
        make_driver(tmp_path, store, with_checkpoint).run()
        make_driver(tmp_path, store)
        patched.setattr(driver_module, "names_in", refuse)
        make_driver(tmp_path, store)
    places = tmp_path / "artifacts" / "trials"
    assert len(list(places.iterdir())) == 10

    driver = make_driver(tmp_path, store)
    assert {int(place.name) for place in places.iterdir()} == {t.number for t in driver.study.front}


def fail_profiles_of(numbers: set[int]) -> InlineExecutor:
    executor = InlineExecutor(noop_result, fake_profile)

    def submit_profile(request: ProfileRequest) -> None:
        profile = None if request.trial in numbers else fake_profile(request)
        executor._events.append(
            ProfileDone(trial=request.trial, target="local", profile=profile, reason="no such runtime")
        )

    executor.submit_profile = submit_profile  # type: ignore[method-assign]
    return executor


def test_a_model_that_was_not_measured_is_not_feasible(tmp_path: Path) -> None:
    job = make_job(constraints=[{"metric": "latency", "max": 1000}])
    store = make_store(tmp_path, job)
    driver = Driver(make_study(store), fail_profiles_of({0, 3, 4}), tmp_path)
    driver.run()

    trials = store.trials()
    assert {t.number for t in trials if t.unmeasured == "no such runtime"} == {0, 3, 4}
    assert not {0, 3, 4} & {t.number for t in driver.study.front}
    assert driver.study.counts()["failed"] == 3
    told = driver._asker.study.get_trials(deepcopy=False)
    assert {t.state.name for t in told} == {"COMPLETE"}
    assert told[0].values[0] == DATA.chance_accuracy


def test_a_failed_measurement_is_not_repeated_by_a_resume(tmp_path: Path) -> None:
    store = make_store(tmp_path, make_job(objectives=["accuracy", "latency"]))
    Driver(make_study(store), fail_profiles_of({0}), tmp_path).run()

    executor = InlineExecutor(noop_result, fake_profile)
    executor.submit_profile = lambda request: pytest.fail(str(request.trial))  # type: ignore[method-assign]
    assert Driver(make_study(store), executor, tmp_path).run() == "trial budget used"


def test_the_front_in_memory_is_the_front_in_the_database(tmp_path: Path) -> None:
    job = make_job(constraints=[{"metric": "latency", "max": 14.5}], search={"sampler": "random", "trials": 30})
    store = make_store(tmp_path, job)
    driver = make_driver(tmp_path, store)
    driver.run()

    in_memory = [t.number for t in driver.study.front]
    assert in_memory == [t.number for t in StudyReport.load(store).front]
    assert max(in_memory) <= 13  # the fake latency is 1 ms plus the trial's number


def test_equal_models_are_ranked_by_number_whoever_ends_first(tmp_path: Path) -> None:
    store = make_store(tmp_path, make_job())
    study = make_study(store)
    driver = make_driver(tmp_path, store)
    numbers = [driver._ask(), driver._ask()]
    for number in reversed(numbers):
        assert number is not None
        result = noop_result(
            TrialRequest(
                trial=number,
                candidate=study.space.decode(driver.study.trials[number].draw),
                train=study.job.train,
                seed=0,
                data_fingerprint="f",
                artifact_dir="x",
            )
        )
        cost = driver.study.trials[0].cost
        driver.study.update(number, cost=cost)
        driver.study.store_outcome(number, result.model_copy(update={"accuracy": 0.5}))
    assert [t.number for t in driver.study.front] == [0]


def test_a_full_disk_stops_the_search_and_blames_no_candidate(tmp_path: Path) -> None:
    def run(request: TrialRequest) -> TrialFailure:
        return TrialFailure(
            trial=request.trial, stage="evaluate", failure="storage", message="No space left", retryable=True
        )

    store = make_store(tmp_path, make_job())
    with pytest.raises(StudyError, match=r"No space left.*vitsearch resume"):
        make_driver(tmp_path, store, run).run()
    assert [(t.state, t.outcome) for t in store.trials()] == [("asked", None)]

    make_driver(tmp_path, store).run()
    assert sum(t.succeeded for t in store.trials()) == 10


@pytest.mark.parametrize(
    ("stage", "kind", "message"),
    [("data", "other_data", "the worker holds other data"), ("train", "no_teacher", "the worker has no teacher")],
)
def test_a_worker_that_lacks_something_is_not_taken_for_a_full_disk(
    tmp_path: Path, stage: str, kind: str, message: str
) -> None:
    def run(request: TrialRequest) -> TrialFailure:
        found = {"trial": request.trial, "stage": stage, "failure": kind, "message": message, "retryable": True}
        return TrialFailure.model_validate(found)

    with pytest.raises(
        StudyError, match=f"cannot be trained on any worker: {message}.*vitsearch resume"
    ) as caught:
        make_driver(tmp_path, make_store(tmp_path, make_job()), run).run()
    assert "make room" not in str(caught.value)


def test_what_ends_beside_the_trial_that_ends_the_search_is_kept(tmp_path: Path) -> None:
    class Crowd(PausedExecutor):
        def __init__(self) -> None:
            super().__init__(noop_result)
            self.requests: dict[str, TrialRequest] = {}

        def submit(self, worker: str, request: TrialRequest) -> None:
            self.requests[worker] = request

        def poll(self, timeout_s: float) -> list[Event]:
            full = TrialFailure(
                trial=self.requests["a"].trial, stage="train", failure="storage", message="full", retryable=True
            )
            return [
                TrialDone(worker="a", outcome=full),
                TrialDone(worker="b", outcome=noop_result(self.requests["b"])),
            ]

    store = make_store(tmp_path, make_job(search={"sampler": "random", "trials": 4, "max_retries": 0}))
    with pytest.raises(StudyError, match="full"):
        Driver(make_study(store), Crowd(), tmp_path).run()
    assert [(trial.state, trial.succeeded) for trial in store.trials()] == [("asked", False), ("told", True)]


class NodesExecutor(InlineExecutor):
    """Loses all of its many workers at once, as often as asked."""

    def __init__(self, workers: int, deaths: int) -> None:
        super().__init__(noop_result, fake_profile)
        self.names, self.deaths = [f"w{number}" for number in range(workers)], deaths
        self.requests: dict[str, TrialRequest] = {}

    def idle_workers(self) -> list[str]:
        return [name for name in self.names if name not in self.requests]

    def submit(self, worker: str, request: TrialRequest) -> None:
        self.requests[worker] = request

    def poll(self, timeout_s: float) -> list[Event]:
        requests, self.requests = self.requests, {}
        if self.deaths:
            self.deaths -= 1
            return [WorkerLost(worker=name, trial=one.trial, reason="gone") for name, one in requests.items()]
        return [TrialDone(worker=name, outcome=noop_result(one)) for name, one in requests.items()]


def test_a_node_that_takes_many_workers_along_ends_no_search(tmp_path: Path) -> None:
    store = make_store(tmp_path, make_job(search={"sampler": "random", "trials": 20}))
    driver = Driver(make_study(store), NodesExecutor(16, deaths=1), tmp_path)
    assert driver.run() == "trial budget used"
    assert all(trial.succeeded for trial in store.trials() if trial.kind == "evaluate")


def test_nodes_that_only_die_stop_the_search(tmp_path: Path) -> None:
    store = make_store(tmp_path, make_job(search={"sampler": "random", "trials": 20, "max_retries": 2}))
    with pytest.raises(StudyError, match="32 workers were lost in a row"):
        Driver(make_study(store), NodesExecutor(16, deaths=99), tmp_path).run()
    assert not any(trial.outcome for trial in store.trials())


def test_workers_that_only_die_stop_the_search(tmp_path: Path) -> None:
    store = make_store(tmp_path, make_job(search={"sampler": "random", "trials": 50, "max_retries": 2}))
    executor = LosingExecutor(dict.fromkeys(range(50), 99))
    with pytest.raises(StudyError, match="lost in a row"):
        Driver(make_study(store), executor, tmp_path).run()
    assert len(store.trials()) <= 5


def test_what_ended_during_the_last_poll_is_kept_at_a_stop(tmp_path: Path) -> None:
    store = make_store(tmp_path, make_job())
    executor = InlineExecutor(noop_result, fake_profile)
    executor.poll, real_poll = lambda timeout_s: [] if timeout_s else real_poll(0), executor.poll  # type: ignore[method-assign]
    driver = Driver(make_study(store), executor, tmp_path, on_change=lambda d: d.request_stop())
    driver.run()
    assert [t.state for t in store.trials()] == ["told"]
