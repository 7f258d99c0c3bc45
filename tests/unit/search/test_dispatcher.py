from __future__ import annotations

from pathlib import Path

from tests.unit.search.factory import make_job
from tests.unit.trial.factory import request
from vitsearch.artifacts import claim_on
from vitsearch.messages import EpochReport, TrialRequest
from vitsearch.search import EpochDone, InlineExecutor, ProfileDone, WorkerLost, WorkerRests
from vitsearch.search.dispatcher import Dispatcher
from vitsearch.testing import noop_result

LIMIT_S = make_job().search.trial_timeout_s


class TwoWorkers(InlineExecutor):
    """Keeps trials for ever."""

    def __init__(self) -> None:
        super().__init__(noop_result)
        self.restarted: list[str] = []
        self.claims: list[str] = []

    def idle_workers(self) -> list[str]:
        return ["a", "b"]

    def submit(self, worker: str, request: TrialRequest) -> None:
        self.claims.append(request.claim)

    def restart(self, worker: str, reason: str) -> None:
        self.restarted.append(worker)


def epoch(trial: int) -> EpochReport:
    return EpochReport(
        trial=trial, epoch=1, epochs=2, train_loss=1.0, accuracy=0.5, learning_rate=0.1, images_per_s=1.0
    )


def test_only_events_of_what_runs_count(tmp_path: Path) -> None:
    one = Dispatcher(TwoWorkers(), timeout_s=LIMIT_S, clock=lambda: 0.0)
    one.start("a", request(tmp_path))
    assert one.idle_workers() == ["b"], "until its end is told"
    assert one.note(EpochDone(worker="a", report=epoch(3)))
    assert one.running["a"].report == epoch(3)
    assert not one.note(EpochDone(worker="a", report=epoch(4))), "of an earlier trial"
    assert not one.note(WorkerRests(worker="b"))
    assert not one.note(ProfileDone(trial=3, target="local", profile=None))
    assert one.note(WorkerLost(worker="a", trial=3, reason="killed"))
    assert not one.note(WorkerLost(worker="a", trial=3, reason="killed"))
    assert one.idle_workers() == ["a", "b"]


def test_each_start_but_the_first_claims_the_trials_files(tmp_path: Path) -> None:
    executor, wanted = TwoWorkers(), request(tmp_path)
    one = Dispatcher(executor, timeout_s=LIMIT_S, clock=lambda: 0.0)
    one.start("a", wanted)
    assert not claim_on(str(tmp_path))
    for _ in range(2):
        one.note(WorkerLost(worker="a", trial=3, reason="killed"))
        one.start("a", wanted)
        assert executor.claims[-1] == claim_on(str(tmp_path))
    resumed = Dispatcher(executor, timeout_s=LIMIT_S, clock=lambda: 0.0, begun=[3])
    resumed.start("b", wanted)
    assert executor.claims[-1] == claim_on(str(tmp_path))
    assert executor.claims[0] == ""
    assert len(set(executor.claims)) == 4


def test_a_store_that_is_away_is_the_workers_to_tell(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    executor = TwoWorkers()
    one = Dispatcher(executor, timeout_s=LIMIT_S, clock=lambda: 0.0, begun=[3])
    one.start("a", request(tmp_path / "file" / "trial"))
    assert executor.claims == [""]


def test_time_in_which_the_driver_was_away_is_not_the_trials(tmp_path: Path) -> None:
    """Its database was gone, or the laptop asleep: what trials told meanwhile is still to come."""
    executor, now = TwoWorkers(), [0.0]
    one = Dispatcher(executor, timeout_s=10, clock=lambda: now[0])
    one.start("a", request(tmp_path))
    now[0] = 4.0
    assert list(one.give_up_on_hanging()) == []
    now[0] = 104.0
    assert list(one.give_up_on_hanging()) == []
    now[0] = 108.0
    assert [failure.failure for failure in one.give_up_on_hanging()] == ["timeout"], "one that hangs still does"
    assert executor.restarted == ["a"]


def test_progress_and_rest_put_off_the_end_of_patience(tmp_path: Path) -> None:
    executor, now = TwoWorkers(), [0.0]
    one = Dispatcher(executor, timeout_s=10, clock=lambda: now[0])
    for worker in ("a", "b"):
        one.start(worker, request(tmp_path))
    now[0] = 4.0
    assert list(one.give_up_on_hanging()) == []
    now[0] = 8.0
    one.note(WorkerRests(worker="a"))
    assert list(one.give_up_on_hanging()) == []
    now[0] = 11.0
    (failure,) = one.give_up_on_hanging()
    assert executor.restarted == ["b"]
    assert (failure.trial, failure.failure) == (3, "timeout")
    assert list(one.running) == ["a"]
    assert list(one.give_up_on_hanging()) == []
