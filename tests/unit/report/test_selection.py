"""Which trial ``export --select`` takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.unit.report.factory import DATA, add_trials, job, report
from vitsearch.cli import exporting
from vitsearch.cli.main import app
from vitsearch.cli.run_folder import new_study
from vitsearch.errors import InputError, StudyError
from vitsearch.report import StudyReport, find_trial, select_trial


@pytest.fixture
def found(tmp_path: Path) -> StudyReport:
    return report(tmp_path, None, 40)


def test_the_words_name_members_of_the_front(found: StudyReport) -> None:
    accuracies = [t.figures["accuracy"] for t in found.front]
    rates = [t.figures["eer_pct"] for t in found.front]
    assert len(found.front) > 2
    assert select_trial(found, "knee") == found.knee
    assert select_trial(found, "best-accuracy").figures["accuracy"] == max(accuracies)
    assert select_trial(found, "best-eer").figures["eer_pct"] == min(rates)
    assert len({select_trial(found, word).number for word in ("knee", "best-accuracy", "best-eer")}) == 3


def test_a_number_names_a_member_of_the_front(found: StudyReport) -> None:
    for trial in found.front:
        assert select_trial(found, f"trial={trial.number}") == trial


@pytest.mark.parametrize("which", ["off the front", "not there"])
def test_other_trials_have_no_weights_left(found: StudyReport, which: str) -> None:
    members = [trial.number for trial in found.front]
    others = {"off the front": [t.number for t in found.trials if t.number not in members], "not there": [4711]}
    for number in others[which]:
        with pytest.raises(InputError, match="only their weights are kept") as caught:
            select_trial(found, f"trial={number}")
        assert (caught.value.field, caught.value.value) == ("--select", f"trial={number}")
        assert caught.value.remedy == f"choose one of trials {', '.join(map(str, members))}"


@pytest.mark.parametrize(
    "words", ["", "best", "trial", "trial=", "trial=-1", "trial=1.0", "trial=x", "knee ", "KNEE", "7"]
)
def test_anything_else_is_refused(found: StudyReport, words: str) -> None:
    with pytest.raises(InputError, match="must be knee, best-accuracy, best-eer or trial=N") as caught:
        select_trial(found, words)
    assert (caught.value.field, caught.value.value) == ("--select", words)


def test_any_trial_can_be_found_by_its_number(found: StudyReport) -> None:
    for trial in found.trials:
        assert find_trial(found, f"trial={trial.number}") == trial
    assert find_trial(found, "knee") == found.knee
    with pytest.raises(InputError, match="names no trial of study") as caught:
        find_trial(found, "trial=40")
    assert (caught.value.where, caught.value.value) == ("vitsearch show", "trial=40")
    assert caught.value.remedy == "trials are numbered 0 to 39"
    with pytest.raises(InputError, match="must be knee, best-accuracy, best-eer or trial=N"):
        find_trial(found, "40")


def test_without_a_front_a_trial_is_shown_by_its_number(tmp_path: Path) -> None:
    failed = report(tmp_path, None, 3, fail_every=1)
    assert find_trial(failed, "trial=2").number == 2
    with pytest.raises(StudyError, match=r"--select trial=N shows any of its trials, N up to 2"):
        find_trial(failed, "knee")


def test_a_study_without_a_front_has_nothing_to_export(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="has no front yet"):
        select_trial(report(tmp_path, None, 0), "knee")


def studied(tmp_path: Path, trials: int) -> Path:
    store = new_study(job(), tmp_path / "out")
    store.acquire()
    store.set_data(DATA)
    add_trials(store, trials)
    return tmp_path / "out"


def test_a_refused_selection_writes_nothing(tmp_path: Path) -> None:
    out = studied(tmp_path, 10)
    for words in ("garbage", "trial=4711"):
        arguments = ["export", str(out), "--select", words, "--out", str(tmp_path / "bundle")]
        assert isinstance(CliRunner().invoke(app, arguments).exception, InputError)
    assert not (tmp_path / "bundle").exists()


def test_a_file_of_integers_is_refused_before_any_image_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = studied(tmp_path, 40)
    monkeypatch.setattr(exporting, "load_data", lambda _: pytest.fail("images were read"))
    for words, rule in (
        ("int8", "must be dynamic or qdq"),
        ("qdq", "needs a model whose weights and activations"),
    ):
        arguments = ["export", str(out), "--int8", words, "--out", str(tmp_path / "bundle")]
        error = CliRunner().invoke(app, arguments).exception
        assert isinstance(error, InputError)
        assert rule in str(error)
        assert error.field == "--int8"
