"""What every database must do, over each that is supported."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, inspect, update

from tests.unit.search.factory import DATA, fake_profile, make_job
from vitsearch.candidate import Architecture, Candidate, ToMe
from vitsearch.config import TargetSpec
from vitsearch.cost import cost_of
from vitsearch.errors import StudyError, StudyLockedError
from vitsearch.messages import ProfileRequest, TrialFailure
from vitsearch.storage import StudyStore, TrialRecord, database_url, open_engine
from vitsearch.storage.tables import Base, StudyTable
from vitsearch.testing import noop_result

ARCHITECTURE = Architecture(
    image_size=8, in_chans=1, num_classes=10, patch_size=2, depth=2, width=16, heads=2, mlp_ratio=2.0
)
CANDIDATE = Candidate(architecture=ARCHITECTURE, tokens=ToMe(r=3)).canonical()


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    url = database_url(tmp_path) if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    engine = open_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine: Engine) -> Iterator[StudyStore]:
    job = make_job(name=f"study-{uuid.uuid4().hex[:8]}")
    store = StudyStore.create(engine, job)
    store.acquire()
    yield store
    store._stop_heartbeat()


def record(number: int) -> TrialRecord:
    return TrialRecord(
        number=number,
        state="asked",
        kind="evaluate",
        candidate=CANDIDATE,
        cost=cost_of(CANDIDATE),
        draw={"architecture.depth": 2, "tokens.tau": 0.5, "tokens.reducer": "tome"},
        sampler_state='{"nsga2:generation": 3}',
    )


def test_a_study_comes_back_as_it_was_stored(store: StudyStore) -> None:
    store.set_data(DATA)
    study = store.study()
    assert study.data == DATA
    assert study.job.dataset.kind == "digits"
    assert study.state == "created"


def test_a_second_study_of_the_same_name_is_refused(engine: Engine, store: StudyStore) -> None:
    with pytest.raises(StudyError, match="already has a study named"):
        StudyStore.create(engine, store.study().job)


def test_a_trial_passes_through_its_life(store: StudyStore) -> None:
    from vitsearch.messages import TrialRequest

    store.add_trial(record(0))
    store.lease_trial(0, "w1", 1)
    leased = store.trials()[0]
    assert (leased.state, leased.worker, leased.attempts) == ("leased", "w1", 1)
    assert leased.draw == record(0).draw
    assert leased.candidate == CANDIDATE
    assert json.loads(leased.sampler_state) == {"nsga2:generation": 3}

    request = TrialRequest(
        trial=0, candidate=CANDIDATE, train=store.study().job.train, seed=1, data_fingerprint="f", artifact_dir="x"
    )
    result = noop_result(request)
    assert store.store_outcome(0, result, {"accuracy": 0.5})
    profile = fake_profile(
        ProfileRequest(trial=0, artifact_dir="x", candidate=CANDIDATE, target=TargetSpec(name="local"))
    )
    store.add_profiles(0, [profile], {"accuracy": 0.5, "latency_ms_p50": 1.0})
    store.set_told(0)
    store.store_final(0, result)

    told = store.trials()[0]
    assert told.state == "told"
    assert told.outcome == result
    assert told.final == result
    assert told.figures == {"accuracy": 0.5, "latency_ms_p50": 1.0}
    assert told.profiles == {"local": profile}


def test_the_first_outcome_wins(store: StudyStore) -> None:
    store.add_trial(record(0))
    first = TrialFailure(trial=0, stage="train", failure="nan_loss", message="first")
    second = first.model_copy(update={"message": "second"})
    assert store.store_outcome(0, first, {})
    assert not store.store_outcome(0, second, {})
    assert store.trials()[0].outcome == first


def test_only_the_driver_may_write(engine: Engine, store: StudyStore) -> None:
    reader = StudyStore(engine, store.study_id)
    with pytest.raises(StudyError, match="lease"):
        reader.add_trial(record(0))
    assert reader.trials() == []


def test_a_second_live_driver_is_refused(
    engine: Engine, store: StudyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitsearch.storage.store.this_driver", lambda: "elsewhere:1:0")
    with pytest.raises(StudyLockedError, match="is driven by"):
        StudyStore(engine, store.study_id).acquire()
    store.add_trial(record(0))  # the owner is not disturbed


def test_a_lease_does_not_run_out_under_a_living_driver(
    engine: Engine, store: StudyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitsearch.storage.lease.LEASE_S", 0.3)
    store.acquire()  # once more, with the short lease
    time.sleep(1.0)
    monkeypatch.setattr("vitsearch.storage.store.this_driver", lambda: "elsewhere:1:0")
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    with pytest.raises(StudyLockedError):
        StudyStore(engine, store.study_id).acquire()


@pytest.mark.parametrize("why", ["process gone", "lease ran out", "given back"])
def test_a_dead_driver_is_replaced_and_can_write_no_more(engine: Engine, store: StudyStore, why: str) -> None:
    import socket

    if why == "given back":
        stale = StudyStore(engine, store.study_id)
        stale._epoch = store._epoch
        store.release("interrupted")
    else:
        stale = store
        owner = f"{socket.gethostname()}:999999:0" if why == "process gone" else "elsewhere:1:0"
        until = 4e9 if why == "process gone" else 1.0
        with engine.begin() as connection:
            values = {"owner": owner, "lease_until": until}
            connection.execute(update(StudyTable).where(StudyTable.id == store.study_id).values(**values))

    successor = StudyStore(engine, store.study_id)
    successor.acquire()
    successor.add_trial(record(0))

    with pytest.raises(StudyLockedError):
        stale.add_trial(record(1))
    assert [trial.number for trial in successor.trials()] == [0]


def test_the_outbox_keeps_order_until_delivered(store: StudyStore) -> None:
    for i in range(3):
        store.enqueue("front", {"members": [i]})
    waiting = store.undelivered()
    assert [json.loads(m.payload)["members"] for m in waiting] == [[0], [1], [2]]
    store.mark_delivered([waiting[0].id])
    assert [m.id for m in store.undelivered()] == [waiting[1].id, waiting[2].id]


def test_the_migrations_make_the_tables_the_code_uses(engine: Engine) -> None:
    found = inspect(engine)
    for table in Base.metadata.sorted_tables:
        columns = {column["name"]: column["nullable"] for column in found.get_columns(table.name)}
        assert columns == {column.name: column.nullable for column in table.columns}, table.name


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    url = database_url(tmp_path)
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()
    with pytest.raises(StudyError, match="newer than this vitsearch"):
        open_engine(url)


def test_a_password_is_not_shown_when_the_server_is_away() -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    with pytest.raises(StudyError) as caught:
        open_engine("postgresql+psycopg://me:s3cret@127.0.0.1:1/none")
    assert "s3cret" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)
