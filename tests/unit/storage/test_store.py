"""A database that is damaged, or in which somebody else has written."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.unit.report.factory import add_trials, new_store
from vitsearch.errors import StudyError
from vitsearch.storage import DATABASE_FILE, StudyStore, database_url, open_engine


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = new_store(tmp_path)
    add_trials(store, 2)
    store.release("finished")
    return tmp_path


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("studies", "job", "{}"), ("studies", "data", "["), ("studies", "state", "sleeping"),
        ("trials", "candidate", '{"architecture": {}}'), ("trials", "draw", "no JSON"),
        ("trials", "cost", "[" * 9000),
        ("results", "outcome", "null"), ("results", "figures", '{"accuracy": "high"}'),
    ],
)  # fmt: skip
def test_what_no_vitsearch_has_written_is_one_line(folder: Path, table: str, column: str, value: str):
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as connection:
        connection.execute(f"UPDATE {table} SET {column} = ?", [value])  # noqa: S608 - our own names
        connection.commit()
    store = StudyStore.find(open_engine(database_url(folder)))
    with pytest.raises(StudyError, match="holds what no vitsearch has written") as caught:
        (store.study(), store.trials())
    assert "\n" not in str(caught.value)


def test_a_missing_table_is_one_line(folder: Path):
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as connection:
        connection.execute("DROP TABLE finals")
    store = StudyStore.find(open_engine(database_url(folder)))
    with pytest.raises(StudyError, match=r"database is damaged \(no such table: finals\)"):
        store.trials()
