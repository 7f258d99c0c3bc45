"""Addresses of databases that cannot be used."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from vitsearch.errors import InputError, MissingExtraError, StudyError, hide_passwords
from vitsearch.storage import check_url, open_engine
from vitsearch.storage.database import POSTGRES_TIMEOUTS


@pytest.mark.parametrize(
    "url", ["foo", "nosuch://me:s3cret@host/db", "postgresql+nosuch://me:s3cret@host/db", "sqlite+nosuch:///x.db"]
)
def test_what_is_no_database_is_refused_with_what_to_write(url: str):
    with pytest.raises(InputError) as caught:
        check_url(url)
    assert caught.value.field == "storage.url"
    assert "postgresql+psycopg://HOST/DATABASE" in hide_passwords(caught.value.remedy), "as the terminal shows it"
    assert "s3cret" not in str(caught.value)


def test_a_port_is_a_number():
    with pytest.raises(InputError):
        check_url("postgresql+psycopg://me:s3cret@host:port/db")


def test_a_password_from_elsewhere_is_nowhere_in_what_goes_wrong(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DB_URL", "postgresql+psycopg://me:s3cret@host:s3cretport/db")
    with pytest.raises(InputError) as caught:
        open_engine("${DB_URL}")
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
    assert "${DB_URL}" in str(caught.value)
    monkeypatch.setenv("DB_PASSWORD", "s3cret")
    with pytest.raises(StudyError, match=r"cannot open the database .*me:\$\{DB_PASSWORD\}@127") as failed:
        open_engine("postgresql+psycopg://me:${DB_PASSWORD}@127.0.0.1:1/none")
    assert "s3cret" not in "".join(traceback.format_exception(failed.value))


def test_an_address_for_elsewhere_is_checked_without_its_password(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NO_SUCH", raising=False)
    for url in ("postgresql+psycopg://me:${NO_SUCH}@host:${NO_SUCH}/db", "${NO_SUCH}"):
        check_url(url, here=False)
        with pytest.raises(InputError, match="environment variable NO_SUCH"):
            check_url(url)
    with pytest.raises(InputError, match="known here"):
        check_url("nosuch://me:${NO_SUCH}@host/db", here=False)


def test_a_missing_driver_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match=r"vitsearch\[postgres\]"):
        check_url("postgresql+psycopg://host/db")


def test_a_driver_of_another_kind_is_answered_with_the_one_that_is_supported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(InputError, match="'psycopg2', which is not installed"):
        check_url("postgresql+psycopg2://host/db")


def test_checking_an_address_creates_nothing(tmp_path: Path):
    check_url(f"sqlite:///{tmp_path}/a.db")
    assert not list(tmp_path.iterdir())


def test_a_database_in_no_folder_is_one_line(tmp_path: Path):
    with pytest.raises(StudyError) as caught:
        open_engine(f"sqlite:///{tmp_path}/none/a.db")
    assert str(caught.value).count("\n") == 0


def test_a_vanished_server_is_noticed_in_half_a_minute_unless_the_address_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
):
    asked: list[dict[str, object]] = []

    def connect(*_: object, **given: object) -> None:
        asked.append(given)
        raise psycopg.OperationalError("no")

    psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")
    monkeypatch.setattr(psycopg, "connect", connect)
    for query in ("", "?connect_timeout=3&keepalives_idle=60"):
        with pytest.raises(StudyError, match="cannot open the database"):
            open_engine(f"postgresql+psycopg://me@host/db{query}")
    assert asked[0].items() >= POSTGRES_TIMEOUTS.items()
    assert (asked[1]["connect_timeout"], asked[1]["keepalives_idle"]) == ("3", "60")
    assert asked[1]["tcp_user_timeout"] == POSTGRES_TIMEOUTS["tcp_user_timeout"]


def test_an_error_shows_no_row(tmp_path: Path):
    engine = open_engine(f"sqlite:///{tmp_path}/a.db")
    with engine.begin() as connection, pytest.raises(IntegrityError) as caught:
        connection.execute(text("INSERT INTO studies (name) VALUES (:name)"), {"name": "geheim"})
    assert "geheim" not in str(caught.value)
