"""Addresses of databases that cannot be used."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vitsearch.errors import InputError, MissingExtraError, StudyError
from vitsearch.storage import check_url, open_engine


@pytest.mark.parametrize(
    "url", ["foo", "nosuch://me:s3cret@host/db", "postgresql+nosuch://me:s3cret@host/db", "sqlite+nosuch:///x.db"]
)
def test_what_is_no_database_is_refused_with_what_to_write(url: str):
    with pytest.raises(InputError) as caught:
        check_url(url)
    assert caught.value.field == "storage.url"
    assert "postgresql+psycopg://USER@HOST/DATABASE" in caught.value.remedy
    assert "s3cret" not in str(caught.value)


def test_a_port_is_a_number():
    with pytest.raises(InputError):
        check_url("postgresql+psycopg://me:s3cret@host:port/db")


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
