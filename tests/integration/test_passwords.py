"""A real PostgreSQL server that asks for a password, which stands in no address."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from tests.conftest import Guarded
from vitsearch.errors import StudyError
from vitsearch.storage import open_engine


@pytest.fixture(autouse=True)
def no_other_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PGPASSWORD", raising=False)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))


def user_at(url: str) -> str:
    engine = open_engine(url)
    with engine.connect() as connection:
        found = str(connection.exec_driver_sql("SELECT current_user").scalar_one())
    engine.dispose()
    return found


def test_a_variable_lets_in(guarded: Guarded, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DB_PASSWORD", guarded.password)
    assert user_at(guarded.url("${DB_PASSWORD}")) == "guarded"


def test_a_file_lets_in(guarded: Guarded, tmp_path: Path):
    (tmp_path / "password").write_text(f"{guarded.password}\n")
    assert user_at(guarded.url(f"${{file:{tmp_path}/password}}")) == "guarded"


def test_postgresql_s_own_variable_and_file_let_in(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    with pytest.raises(StudyError, match="cannot open the database"):
        open_engine(guarded.url(""))
    monkeypatch.setenv("PGPASSWORD", guarded.password)
    assert user_at(guarded.url("")) == "guarded"
    monkeypatch.delenv("PGPASSWORD")
    file = tmp_path / "pgpass"
    escaped = guarded.password.replace("\\", r"\\").replace(":", r"\:")
    file.write_text(f"*:*:*:guarded:{escaped}\n")
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    assert user_at(guarded.url("")) == "guarded"


def test_a_wrong_one_is_refused_and_not_shown(guarded: Guarded, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DB_PASSWORD", "geheimer")
    with pytest.raises(StudyError, match=r"guarded:\$\{DB_PASSWORD\}@.*password authentication failed") as caught:
        open_engine(guarded.url("${DB_PASSWORD}"))
    assert "geheimer" not in "".join(traceback.format_exception(caught.value))
