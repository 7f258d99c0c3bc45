"""What the study store promises over any database: run each of ``STORE_CHECKS`` with a URL of yours.

Every check makes a study of its own, so that one database serves all. A failed check raises ``AssertionError``.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from vitsearch.candidate import Architecture, Candidate, ToMe
from vitsearch.config import JobSpec, TargetSpec
from vitsearch.cost import cost_of
from vitsearch.errors import StudyError
from vitsearch.messages import ProfileRequest, TrialFailure, TrialRequest
from vitsearch.storage import KnownTrials, StudyStore, TrialRecord, open_engine
from vitsearch.testing.noop import noop_profile, noop_result
from vitsearch.testing.study import noop_data

CANDIDATE = Candidate(
    architecture=Architecture(
        image_size=8, in_chans=1, num_classes=10, patch_size=2, depth=2, width=16, heads=2, mlp_ratio=2.0
    ),
    tokens=ToMe(r=3),
).canonical()


@contextmanager
def new_study(url: str) -> Iterator[StudyStore]:
    """A new study in the database, its lease held."""
    engine = open_engine(url)
    job = {"name": f"study-{uuid.uuid4().hex[:8]}", "dataset": {"kind": "digits"}, "space": "vit_micro_8"}
    store = StudyStore.create(engine, JobSpec.model_validate(job))
    store.acquire()
    try:
        yield store
    finally:
        with suppress(StudyError):  # given back already
            store.release("interrupted")
        engine.dispose()


def asked_trial(number: int) -> TrialRecord:
    """A trial that was just asked."""
    return TrialRecord(
        number=number,
        state="asked",
        kind="evaluate",
        candidate=CANDIDATE,
        cost=cost_of(CANDIDATE),
        draw={"architecture.depth": 2, "tokens.tau": 0.5, "tokens.reducer": "tome"},
        sampler_state='{"nsga2:generation": 3}',
    )


def check_study(url: str) -> None:
    """A study comes back as it was stored."""
    with new_study(url) as store:
        assert store.study().data is None
        store.set_data(noop_data())
        study = store.study()
        assert study.data == noop_data(), study.data
        assert study.job.dataset.kind == "digits"
        assert study.state == "created", study.state


def check_name(url: str) -> None:
    """A second study of the same name is refused; the first is found by it."""
    with new_study(url) as store:
        job, engine = store.study().job, open_engine(url)
        assert StudyStore.find(engine, job.name).study_id == store.study_id
        _refused(StudyError, lambda: StudyStore.create(engine, job))
        engine.dispose()


def check_trial(url: str) -> None:
    """A trial passes through its life: asked, leased, result, measured, told, final."""
    with new_study(url) as store:
        store.add_trial(asked_trial(0))
        store.lease_trial(0, "w1", 1)
        (leased,) = store.trials()
        assert (leased.state, leased.worker, leased.attempts) == ("leased", "w1", 1)
        assert leased.draw == asked_trial(0).draw
        assert leased.candidate == CANDIDATE
        assert json.loads(leased.sampler_state) == {"nsga2:generation": 3}
        result = noop_result(
            TrialRequest(
                trial=0, candidate=CANDIDATE, train=store.study().job.train, seed=1, data_fingerprint="f",
                artifact_dir="x",
            )
        )  # fmt: skip
        assert store.store_outcome(0, result, {"accuracy": 0.5})
        target = TargetSpec(name="local")
        profile = noop_profile(ProfileRequest(trial=0, artifact_dir="x", candidate=CANDIDATE, target=target))
        store.add_profiles(0, [profile], {"accuracy": 0.5, "latency_ms_p50": 1.0})
        store.set_told(0)
        store.store_final(0, result)
        (told,) = store.trials()
        assert told.state == "told", told.state
        assert told.outcome == told.final == result
        assert told.figures == {"accuracy": 0.5, "latency_ms_p50": 1.0}
        assert told.profiles == {"local": profile}


def check_known_trials(url: str) -> None:
    """Trials that are known are read again when they have changed, and only then."""
    request = ProfileRequest(trial=0, artifact_dir="x", candidate=CANDIDATE, target=TargetSpec(name="local"))
    failure = TrialFailure(trial=0, stage="train", failure="nan_loss", message="NaN")
    with new_study(url) as store:
        steps: list[Callable[[], object]] = [
            lambda: store.add_trial(asked_trial(0)),
            lambda: store.lease_trial(0, "w1", 1),
            lambda: store.unlease_trial(0, 1),
            lambda: store.lease_trial(0, "w2", 1),
            lambda: store.store_outcome(0, failure, {"macs": 1.0}),
            lambda: store.add_profiles(0, [noop_profile(request)], {"macs": 2.0}),
            lambda: store.add_profiles(0, [noop_profile(request)], {"macs": 3.0}),
            lambda: store.set_unmeasured(0, "away"),
            lambda: store.set_told(0),
            lambda: store.store_final(0, failure),
        ]
        store.add_trial(asked_trial(1))
        known = KnownTrials()
        for step in steps:
            before = {trial.number: trial for trial in store.trials(known)}
            step()
            now = store.trials(known)
            assert now == store.trials()
            assert now[-1] is before[1]


def check_measurements(url: str) -> None:
    """A measurement is found again by its key, also by another study; the latest counts."""
    request = ProfileRequest(trial=0, artifact_dir="x", candidate=CANDIDATE, target=TargetSpec(name="local"))
    first = noop_profile(request)
    second = first.model_copy(update={"latency_ms_p50": 2.0})
    with new_study(url) as store:
        assert store.measurements(["a", "b"]) == {}
        store.keep_measurements({"a": first})
        store.keep_measurements({"a": second, "c": first})
        store.keep_measurements({})
    with new_study(url) as store:
        assert store.measurements(["a", "b"]) == {"a": second}


def check_first_outcome(url: str) -> None:
    """The first outcome of a trial wins."""
    with new_study(url) as store:
        store.add_trial(asked_trial(0))
        first = TrialFailure(trial=0, stage="train", failure="nan_loss", message="first")
        assert store.store_outcome(0, first, {})
        assert not store.store_outcome(0, first.model_copy(update={"message": "second"}), {})
        assert store.trials()[0].outcome == first


def check_driver(url: str) -> None:
    """Only the driver may write; one that gave its lease back writes no more, its successor does."""
    with new_study(url) as store:
        engine = open_engine(url)
        other = StudyStore(engine, store.study_id)
        _refused(StudyError, lambda: other.add_trial(asked_trial(0)))
        assert other.trials() == []
        store.release("interrupted")
        other.acquire()
        other.add_trial(asked_trial(0))
        _refused(StudyError, lambda: store.add_trial(asked_trial(1)))
        assert [trial.number for trial in store.trials()] == [0]
        other.release("interrupted")
        engine.dispose()


def check_outbox(url: str) -> None:
    """Messages wait in order until they are delivered."""
    with new_study(url) as store:
        for i in range(3):
            store.enqueue("front", {"members": [i]})
        waiting = store.undelivered()
        assert [json.loads(message.payload)["members"] for message in waiting] == [[0], [1], [2]]
        store.mark_delivered([waiting[0].id])
        assert [message.id for message in store.undelivered()] == [waiting[1].id, waiting[2].id]
        store.mark_delivered([waiting[1].id, waiting[2].id])
        assert store.undelivered() == []
        store.enqueue("front", {"members": [3]})
        (later,) = store.undelivered()
        assert later.id > waiting[2].id
        store.mark_delivered([waiting[2].id])
        assert store.undelivered() == [later]


STORE_CHECKS: tuple[Callable[[str], None], ...] = (
    check_study,
    check_name,
    check_trial,
    check_known_trials,
    check_measurements,
    check_first_outcome,
    check_driver,
    check_outbox,
)


def _refused(kind: type[Exception], act: Callable[[], object]) -> None:
    try:
        act()
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was not raised")
