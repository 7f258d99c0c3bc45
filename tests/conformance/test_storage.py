"""What every database must do, over each that is supported."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, inspect, update

from tests.unit.search.factory import make_job
from vitsearch.errors import StudyError, StudyLockedError
from vitsearch.storage import StudyStore, database_url, open_engine
from vitsearch.storage.tables import Base, StudyTable
from vitsearch.testing.storage import STORE_CHECKS, asked_trial


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return database_url(tmp_path) if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
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


@pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
def test_a_promise(check: Callable[[str], None], url: str) -> None:
    check(url)


def test_a_second_live_driver_is_refused(
    engine: Engine, store: StudyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitsearch.storage.store.this_driver", lambda: "elsewhere:1:0")
    with pytest.raises(StudyLockedError, match="is driven by"):
        StudyStore(engine, store.study_id).acquire()
    store.add_trial(asked_trial(0))  # the owner is not disturbed


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


@pytest.mark.parametrize("ahead_s", [-3600.0, 3600.0])
def test_on_a_server_clocks_of_hosts_may_differ(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, ahead_s: float
) -> None:
    monkeypatch.setattr("vitsearch.storage.store.this_driver", lambda: "elsewhere:1:0")
    engine = open_engine(postgres_url)
    store = StudyStore.create(engine, make_job(name=f"study-{uuid.uuid4().hex[:8]}"))
    store.acquire()
    store.add_trial(asked_trial(0))
    monkeypatch.setattr("vitsearch.storage.store.this_driver", lambda: "here:1:0")
    now = time.time
    monkeypatch.setattr("time.time", lambda: now() + ahead_s)
    with pytest.raises(StudyLockedError, match=r"or wait [23][0-9] s if"):
        StudyStore(engine, store.study_id).acquire()
    store._stop_heartbeat()
    with engine.begin() as connection:
        ended = update(StudyTable).where(StudyTable.id == store.study_id).values(lease_until=now() - 1)
        connection.execute(ended)
    successor = StudyStore(engine, store.study_id)
    successor.acquire()
    successor._stop_heartbeat()
    engine.dispose()


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
    assert not successor.holds_lease()
    successor.acquire()
    assert (stale.holds_lease(), successor.holds_lease()) == (False, True)
    successor.add_trial(asked_trial(0))

    with pytest.raises(StudyLockedError):
        stale.add_trial(asked_trial(1))
    assert [trial.number for trial in successor.trials()] == [0]


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
