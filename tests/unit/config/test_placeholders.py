"""Passwords that stand in the environment or in a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import make_url

from vitsearch.config.placeholders import check_placeholders, filled_in, is_placeholder, sample_of
from vitsearch.errors import InputError, hide_passwords, holds_password

SECRET = "s3/cr:e@t ?&%#é+$"  # noqa: S105 - the word the tests look for


def test_a_variable_becomes_the_password_whatever_is_in_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DB_PASSWORD", SECRET)
    url = make_url(filled_in("postgresql+psycopg://me:${DB_PASSWORD}@host:5432/db", field="storage.url"))
    assert (url.username, url.password, url.host, url.port, url.database) == ("me", SECRET, "host", 5432, "db")


def test_the_first_line_of_a_file_becomes_the_password(tmp_path: Path):
    (tmp_path / "password").write_text(f"{SECRET}\r\nanother line\n", encoding="utf-8")
    url = make_url(filled_in(f"postgresql://me:${{file:{tmp_path}/password}}@host/db", field="storage.url"))
    assert url.password == SECRET


def test_user_and_query_are_encoded_and_other_parts_are_not(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("USER_NAME", "me@home")
    monkeypatch.setenv("HOST", "db.example.com:5433")
    monkeypatch.setenv("KEY", SECRET)
    url = make_url(
        filled_in("postgresql://${USER_NAME}:${KEY}@${HOST}/db?sslpassword=${KEY}", field="storage.url")
    )
    assert (url.username, url.password, url.host, url.port) == ("me@home", SECRET, "db.example.com", 5433)
    assert url.query["sslpassword"] == SECRET


def test_a_whole_address_may_stand_elsewhere(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("URL", "postgresql://me:a%40b@host/db")
    assert is_placeholder("${URL}")
    assert not is_placeholder("http://${URL}")
    assert filled_in("${URL}", field="storage.url") == "postgresql://me:a%40b@host/db"


def test_what_a_secret_looks_like_is_not_filled_in_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("A", "${B}")
    assert filled_in("x://u:${A}@h", field="storage.url") == "x://u:%24%7BB%7D@h"


@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_that_is_missing_is_named_with_field_and_remedy(
    monkeypatch: pytest.MonkeyPatch, value: str | None
):
    monkeypatch.delenv("NO_SUCH", raising=False)
    if value is not None:
        monkeypatch.setenv("NO_SUCH", value)
    with pytest.raises(
        InputError, match=r"storage\.url: needs the environment variable NO_SUCH, .*export NO_SUCH"
    ):
        filled_in("x://u:${NO_SUCH}@h", field="storage.url")


@pytest.mark.parametrize(
    ("content", "problem"), [(None, "No such file"), (b"\n", "is empty"), (b"\xff\xfe\n", "is not UTF-8")]
)
def test_a_file_that_holds_no_password_is_named(tmp_path: Path, content: bytes | None, problem: str):
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=rf"tracking\.uri: needs the first line of the file {file}, .*{problem}"):
        filled_in(f"http://u:${{file:{file}}}@h", field="tracking.uri")


def test_a_folder_is_no_file(tmp_path: Path):
    with pytest.raises(InputError, match="cannot be read"):
        filled_in(f"http://u:${{file:{tmp_path}}}@h", field="tracking.uri")


@pytest.mark.parametrize("text", ["${", "${A", "${}", "${a b}", "${1A}", "${file:x}", "${file:/a b}", "${env:A}"])
def test_what_only_begins_like_a_placeholder_is_refused(text: str):
    with pytest.raises(ValueError, match=r"must have \$\{NAME\} or \$\{file:/FOLDER/FILE\}"):
        check_placeholders(f"x://u:{text}@h")


def test_a_sample_can_stand_anywhere():
    assert sample_of("x://${U}:${file:/a/b}@${H}:${P}/db") == "x://1:1@1:1/db"


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:${PW}@h/db", "postgresql://me:${file:/run/secrets/pw}@h/db", "http://${TOKEN}@h",
        "http://${USER}:${PW}@h", "${URL}", "x://h/db?sslpassword=${PW}",
    ],
)  # fmt: skip
def test_a_placeholder_is_no_password_and_is_shown(address: str):
    assert not holds_password(address)
    assert hide_passwords(address) == address


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:geheim${PW}@h/db", "postgresql://me:${PW}geheim@h/db", "x://u:${A}@h:geheim@h",
        "x://geheim:u:${A}@h", "x://h/db?sslpassword=${PW}geheim", "x://u:${A}@h x://u:geheim@h",
    ],
)  # fmt: skip
def test_a_password_beside_a_placeholder_is_hidden(address: str):
    assert holds_password(address)
    assert "geheim" not in hide_passwords(address)
