"""``vitsearch show``, and studies that are named rather than pointed to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.unit.report import factory
from vitsearch.cli.finding import StudyName
from vitsearch.cli.main import app
from vitsearch.cli.run_folder import new_study
from vitsearch.errors import InputError


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    store = new_study(factory.job(), folder)
    store.acquire()
    store.set_data(factory.DATA)
    factory.add_trials(store, 12, fail_every=6)
    store.release("finished")
    return folder


def run(*arguments: str | Path) -> str:
    found = CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)
    assert found.exit_code == 0
    return found.stdout


def test_the_knee_is_shown_with_the_command_that_exports_it(out: Path) -> None:
    text, front = run("show", out), json.loads(run("pareto", out, "--json"))
    assert text.startswith(f"trial {front['knee']} of study digits: done, on the front, ★ the knee")
    assert text.rstrip().endswith(f"vitsearch export {out} --select trial={front['knee']} --out bundle")
    failed = run("show", out, "--select", "trial=5")
    assert "why        train: nan_loss: the loss is NaN" in failed
    assert "only members of the front keep their weights" in failed


def test_json_of_a_member_is_that_of_the_front_and_more(out: Path) -> None:
    front = json.loads(run("pareto", out, "--json"))
    for member in front["front"]:
        shown = json.loads(run("show", out, "--select", f"trial={member['trial']}", "--json"))
        assert member.items() <= shown.items()
        assert shown["on_front"]
        assert shown["pareto_rank"] == 1
        assert shown["export"].startswith("vitsearch export")
    failed = json.loads(run("show", out, "--select", "trial=5", "--json"))
    assert (failed["fate"], failed["outcome"]["failure"], failed["export"]) == ("failed", "nan_loss", None)


def test_a_number_that_no_trial_has_is_bad_input(out: Path) -> None:
    found = CliRunner().invoke(app, ["show", str(out), "--select", "trial=12"])
    assert isinstance(found.exception, InputError)
    assert found.exception.exit_code == 2
    assert "trials are numbered 0 to 11" in str(found.exception)


def test_a_study_is_read_from_its_database(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{out / 'study.db'}"
    named = ["--study", "digits", "--database", url]
    assert run("pareto", *named, "--json") == run("pareto", out, "--json")
    assert f"vitsearch export --study digits --database {url} --select trial=" in run("show", *named)
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.setenv("VITSEARCH_DATABASE_URL", url)
    assert "vitsearch export --study digits --select trial=" in run("show", "--study", "digits")


def test_what_is_wrong_with_a_database_is_told(out: Path, tmp_path: Path) -> None:
    url, absent = f"sqlite:///{out / 'study.db'}", f"sqlite:///{tmp_path / 'absent.db'}"
    for arguments, rule in (
        (["show", "--study", "digits", "--database", absent], "is no database that holds studies"),
        (["show", "--study", "other", "--database", url], "none is named 'other'; the database holds: digits"),
        (["show", "--study", "digits", "--database", "nonsense"], "must be the address of a database"),
        (["show", "--study", "digits", "--database", "postgresql+psycopg://u:pw@h/d"], "must hold no password"),
        (["show", "--study", "digits", "--database", "postgresql+psycopg://u:pw'x@h/d"], "must have no blanks"),
        (["export", "--out", "b", "--study", "digits", "--database", url], "weights lie in its run's folder"),
    ):
        error = CliRunner().invoke(app, arguments).exception
        assert isinstance(error, InputError)
        assert rule in str(error)
        assert "u:pw" not in str(error)
    assert not (tmp_path / "absent.db").exists()


@pytest.mark.parametrize(
    ("options", "variables", "expected"),
    [
        ((None, None), (None, None), ("http://127.0.0.1:8265", None)),
        ((None, None), ("http://a", None), ("http://a", None)),
        ((None, None), ("http://a", "sqlite:///d"), ("http://a", "sqlite:///d")),
        ((None, None), (None, "sqlite:///d"), (None, "sqlite:///d")),
        ((None, "sqlite:///o"), ("http://a", "sqlite:///d"), (None, "sqlite:///o")),
        (("http://o", None), ("http://a", "sqlite:///d"), ("http://o", "sqlite:///d")),
        (("http://o", "sqlite:///o"), (None, None), ("http://o", "sqlite:///o")),
    ],
)
def test_options_count_more_than_variables_and_a_cluster_more_than_a_database(
    options: tuple[str | None, str | None],
    variables: tuple[str | None, str | None],
    expected: tuple[str | None, str | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in zip(("RAY_API_SERVER_ADDRESS", "VITSEARCH_DATABASE_URL"), variables, strict=True):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    found = StudyName.of("x", *options)
    assert (found.address, found.database) == expected


@pytest.mark.parametrize(
    ("url", "sent"),
    [("postgresql://me@h/db", True), ("postgresql://me:${PW}@h/db", True), ("postgresql://me:pw@h/db", False)],
)
def test_a_variable_s_password_is_not_told_to_a_cluster(
    url: str, sent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.setenv("VITSEARCH_DATABASE_URL", url)
    found = StudyName.of("x", "http://h", None)
    assert (found.database, found.withheld) == ((url, False) if sent else (None, True))
    assert StudyName.of("x", None, None).database == url  # read from here
