"""Which study a command's options mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitsearch.cli.finding import StudyName, named_place
from vitsearch.cli.options import ADDRESS_VARIABLE, DATABASE_VARIABLE
from vitsearch.errors import InputError

CLUSTER, DATABASE = "http://h:1", "sqlite:///d.db"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (ADDRESS_VARIABLE, DATABASE_VARIABLE):
        monkeypatch.delenv(name, raising=False)


def test_a_folder_is_meant_whatever_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert named_place(Path("none"), None, None, None) == Path("none")
    assert named_place("none", None, None, None, submissions=True) == Path("none")
    monkeypatch.setenv(ADDRESS_VARIABLE, CLUSTER)
    assert named_place(str(tmp_path), None, None, None, submissions=True) == tmp_path


def test_a_submission_needs_its_cluster(monkeypatch: pytest.MonkeyPatch):
    expected = StudyName(name="a-1", address=CLUSTER, database=None)
    assert named_place("a-1", None, CLUSTER, None, submissions=True) == expected
    told = named_place("a-1", None, CLUSTER, DATABASE, submissions=True)
    assert told == StudyName(name="a-1", address=CLUSTER, database=DATABASE)
    monkeypatch.setenv(ADDRESS_VARIABLE, CLUSTER)
    assert named_place("a-1", None, None, None, submissions=True) == expected
    assert named_place(None, "a-1", None, None) == expected


@pytest.mark.parametrize("submissions", [False, True])
@pytest.mark.parametrize(("option", "given"), [("--address", (CLUSTER, None)), ("--database", (None, DATABASE))])
def test_a_folder_is_asked_of_nobody(
    option: str, given: tuple[str | None, str | None], submissions: bool, tmp_path: Path
):
    """The options were ignored, and people looked at another study than they thought."""
    with pytest.raises(InputError, match=f"{option}: says where to ask for a study by its name"):
        named_place(str(tmp_path), None, *given, submissions=submissions)


@pytest.mark.parametrize(("place", "study"), [(None, None), ("x", "x")])
def test_one_of_both_is_needed(place: str | None, study: str | None):
    with pytest.raises(InputError, match="needs a run"):
        named_place(place, study, None, None)


@pytest.mark.parametrize("url", ["postgresql+psycopg://me:${NO_SUCH}@host/db", "nosuch+driver://host/db"])
def test_a_database_is_checked_where_it_is_connected_to(url: str):
    """What only the head knows, and its driver, were asked for on a client that never connects."""
    assert StudyName.of("a", CLUSTER, url) == StudyName(name="a", address=CLUSTER, database=url)
    with pytest.raises(InputError, match="--database: "):
        StudyName.of("a", None, url)


@pytest.mark.parametrize("address", [CLUSTER, None])
@pytest.mark.parametrize("password", ["geheim", "ge'heim"])
def test_a_database_with_a_password_is_refused_wherever_it_is_asked_for(address: str | None, password: str):
    with pytest.raises(InputError, match="--database: must h") as caught:
        StudyName.of("a", address, f"postgresql+psycopg://me:{password}@host/db")
    assert "heim" not in str(caught.value)
