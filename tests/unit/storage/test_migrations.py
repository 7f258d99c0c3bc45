"""Databases of earlier versions: ``first_schema.sql`` is a study that the very first one searched and stored."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, create_engine, make_url, text

from vitsearch.config import TargetSpec
from vitsearch.errors import StudyError
from vitsearch.messages import ProfileRequest, TrialResult
from vitsearch.report import StudyReport, space_of
from vitsearch.search import Driver, InlineExecutor, Study
from vitsearch.storage import StudyStore, database_url, open_engine
from vitsearch.storage.database import HEAD, MIGRATIONS
from vitsearch.storage.tables import Base
from vitsearch.testing import noop_profile, noop_result
from vitsearch.testing.storage import CANDIDATE

FIRST = Path(__file__).with_name("first_schema.sql")


@pytest.fixture
def written_first(tmp_path: Path) -> Path:
    """A run's folder as the first version left it, without its weights."""
    with sqlite3.connect(tmp_path / "study.db") as connection:
        connection.executescript(FIRST.read_text(encoding="utf-8"))
    connection.close()
    return tmp_path


def dump(folder: Path) -> list[str]:
    """Schema and rows."""
    with sqlite3.connect(folder / "study.db") as connection:
        lines = list(connection.iterdump())
    connection.close()
    return lines


def test_the_first_schema_becomes_todays(written_first: Path) -> None:
    open_engine(database_url(written_first)).dispose()
    engine = create_engine(database_url(written_first))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    engine.dispose()


def test_a_new_database_has_todays_schema(tmp_path: Path) -> None:
    open_engine(database_url(tmp_path)).dispose()
    engine = create_engine(database_url(tmp_path))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    engine.dispose()


def test_a_database_of_today_is_opened_without_alembic(tmp_path: Path) -> None:
    open_engine(database_url(tmp_path)).dispose()
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD
    code = (
        "import sys\nfrom vitsearch.storage import open_engine\n"
        f"open_engine({database_url(tmp_path)!r}).dispose()\nprint('alembic' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "False"


def test_what_the_first_version_found_is_all_there(written_first: Path) -> None:
    store = StudyStore.find(open_engine(database_url(written_first)))
    report = StudyReport.load(store)
    assert [trial.number for trial in report.trials] == [0, 1, 2]
    assert [trial.figures["accuracy"] for trial in report.trials] == pytest.approx(
        [0.3056, 0.2153, 0.4306], abs=1e-4
    )
    assert [trial.number for trial in report.front] == [2, 0]
    assert {trial.profiles["local"].latency_ms_p50 > 0 for trial in report.front} == {True}
    final = report.trials[2].final
    assert isinstance(final, TrialResult)
    assert final.accuracy == 0.25
    assert len(store.undelivered()) == 4


def test_the_first_schema_becomes_todays_on_postgresql_too(written_first: Path, postgres_url: str) -> None:
    """With the rows of the study, and in a database of its own."""
    server = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text("CREATE DATABASE early"))
    server.dispose()
    url = make_url(postgres_url).set(database="early").render_as_string(hide_password=False)
    source, target = create_engine(database_url(written_first)), create_engine(url)
    first = MetaData()
    first.reflect(source)
    with source.connect() as old, target.begin() as new:
        first.create_all(new)
        for table in first.sorted_tables:
            if rows := [dict(row._mapping) for row in old.execute(table.select())]:
                new.execute(table.insert(), rows)
    source.dispose()
    target.dispose()
    engine = open_engine(url)
    try:
        with engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        report = StudyReport.load(StudyStore.find(engine))
        assert [trial.number for trial in report.trials] == [0, 1, 2]
        assert [trial.number for trial in report.front] == [2, 0]
    finally:
        engine.dispose()


def test_a_study_that_the_first_version_began_goes_on(written_first: Path) -> None:
    store = StudyStore.find(open_engine(database_url(written_first)))
    store.acquire()
    study = store.study()
    assert study.data is not None
    job = study.job.model_copy(update={"search": study.job.search.model_copy(update={"trials": 6})})
    store.set_job(job)
    before = store.trials()
    driver = Driver(
        Study(store, job, space_of(job, study.data), study.data),
        InlineExecutor(noop_result, noop_profile), written_first,
    )  # fmt: skip
    assert driver.run() == "trial budget used"
    after = store.trials()
    assert after[:3] == before
    assert sum(trial.kind == "evaluate" for trial in after) == 6
    assert all(trial.state == "told" for trial in after)
    profile = noop_profile(
        ProfileRequest(trial=0, artifact_dir="x", candidate=CANDIDATE, target=TargetSpec(name="local"))
    )
    store.keep_measurements({"key": profile})
    assert store.measurements(["key"]) == {"key": profile}


def test_a_database_of_a_later_version_is_refused_and_left_alone(written_first: Path) -> None:
    with sqlite3.connect(written_first / "study.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    before = dump(written_first)
    with pytest.raises(StudyError, match="'9999', newer than this vitsearch; upgrade vitsearch"):
        open_engine(database_url(written_first))
    assert dump(written_first) == before


def test_a_schema_that_cannot_be_read_is_one_line(written_first: Path) -> None:
    """SQLite's complaint quotes what is no UTF-8, which Python does not take."""
    file = written_first / "study.db"
    whole = file.read_bytes()
    assert b"CREATE TABLE outbox (" in whole
    file.write_bytes(whole.replace(b"CREATE TABLE outbox (", b"CREATE \x84ABLE outbox ("))
    with pytest.raises(StudyError, match=r"is damaged|malformed"):
        open_engine(database_url(written_first))


def test_many_processes_open_an_old_database_at_once(written_first: Path) -> None:
    code = "import sys; from vitsearch.storage import open_engine; open_engine(sys.argv[1]).dispose()"
    command = [sys.executable, "-c", code, database_url(written_first)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate()[1] for process in processes] == [""] * 4


def test_an_upgrade_that_fails_changes_nothing(written_first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the process is killed within: the next one upgrades from the start."""
    from vitsearch.storage.migrations.versions import v0002_measurements

    before = dump(written_first)
    with monkeypatch.context() as context:
        context.setattr(v0002_measurements.sa, "inspect", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            open_engine(database_url(written_first))
    assert dump(written_first) == before
    open_engine(database_url(written_first)).dispose()
