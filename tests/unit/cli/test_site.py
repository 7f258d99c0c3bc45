"""What a site is given: the file of a database, an address."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command_line import vitsearch
from vitsearch.cli.services import Site
from vitsearch.cli.site import _url_in
from vitsearch.config.placeholders import filled_in
from vitsearch.errors import InputError

URL = "postgresql+psycopg://me:geheim@host/db"


def test_a_password_stays_in_the_file(tmp_path: Path):
    file = tmp_path / "database"
    file.write_text(f"{URL}\n")
    assert _url_in(file) == f"${{file:{file}}}"
    assert filled_in(_url_in(file), field="storage.url") == URL


def test_an_address_without_one_is_taken_as_it_stands(tmp_path: Path):
    file = tmp_path / "database"
    file.write_text("postgresql+psycopg://me@host/db\n")
    assert _url_in(file) == "postgresql+psycopg://me@host/db"


def test_a_path_that_cannot_stand_in_an_address_is_refused(tmp_path: Path):
    file = tmp_path / "my database"
    file.write_text(URL)
    with pytest.raises(InputError, match="must have no blanks"):
        _url_in(file)


@pytest.mark.parametrize(
    ("host", "rule"),
    [
        ("0.0.0.0", "an address of this machine"),  # noqa: S104 - refused
        ("::", "an address of this machine"),
        ("::1", "a name or an IPv4 address"),
    ],
)
def test_an_address_that_others_could_not_use_is_refused_before_anything_starts(
    host: str, rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Site, "start", lambda *_: pytest.fail("it starts"))
    found = vitsearch("up", "--dir", tmp_path / "site", "--host", host)
    assert found.returncode == 2
    assert f"--host: must be {rule}" in found.stderr
    assert not (tmp_path / "site").exists()
