from pathlib import Path

import pytest

from tests.unit.candidate.factory import micro
from tests.unit.report import factory
from vitsearch.report.axes import (
    Groups,
    axes_of,
    axis_of,
    data_words,
    eer_words,
    is_log,
    plain,
    published,
    shown,
    si,
    simulated_bits,
    staircase,
)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("accuracy", 0.97216, "97.22 %"),
        ("eer_pct", 0.0831234, "0.0831 %"),
        ("eer_pct", 101.2, "101 %"),
        ("num_params", 86_567_656, "86.6 M"),
        ("num_macs", 999_900, "1 M"),
        ("num_macs", 17.58e9, "17.6 G"),
        ("size_mb", 0.00001234, "0.0000123 MB"),
        ("latency_ms_p50", 1234.5, "1,234 ms"),
        ("latency_ms_p95", 0.5, "0.5 ms"),
        ("images_per_s", 0.0, "0 images/s"),
        ("bits", 6.5, "6.5"),
    ],
)
def test_figures_carry_their_units(key: str, value: float, text: str):
    assert shown(key, value) == text


def test_numbers_are_never_in_scientific_notation():
    assert [plain(v) for v in (1e-7, 99.96, 1e9, -0.5)] == ["0.0000001", "100", "1,000,000,000", "-0.5"]
    assert [si(v) for v in (0, 999, 1500, 3e15)] == ["0", "999", "1.5 k", "3,000 T"]


def test_axes_carry_their_direction():
    accuracy, eer = axes_of(factory.job())
    assert (accuracy.label, eer.label) == ("accuracy (%) ↑", "EER (%) ↓")
    weighted = factory.job(eer={"metrics": ["params", "macs"], "weights": [0.5, 0.5]})
    assert axis_of("eer", weighted).label == "weighted EER (%) ↓"
    assert eer_words(weighted).startswith("weighted EER: 0.5 parameters + 0.5 FLOPs (MACs), divided by 2")


def test_a_wide_axis_is_logarithmic():
    assert is_log([0.1, 3.0])
    assert not is_log([0.0, 3.0])
    assert not is_log([1, 29])
    assert not is_log([])


@pytest.mark.parametrize(
    ("points", "maximize_x", "corner"),
    [
        ([(1.0, 5.0), (2.0, 7.0)], False, (2.0, 5.0)),  # cheap and accurate
        ([(1.0, 7.0), (2.0, 5.0)], True, (1.0, 5.0)),  # both large
        ([(1.0, 7.0), (2.0, 5.0)], False, (2.0, 7.0)),  # both small
    ],
)
def test_the_staircase_borders_what_the_front_dominates(points, maximize_x, corner):
    assert staircase(points, maximize_x) == [points[0], corner, points[1]]
    assert staircase(points[:1], maximize_x) == points[:1]
    assert staircase([], maximize_x) == []


@pytest.mark.parametrize(
    ("weights", "activations", "simulated"),
    [(32, 32, False), (8, 8, False), (16, 8, False), (4, 8, True), (8, 6, True), (8, 16, True)],
)
def test_which_bits_are_simulated(weights: int, activations: int, simulated: bool):
    precision = {"weight_bits": weights, "activation_bits": activations}
    assert simulated_bits(micro(precision=precision)) is simulated


def test_trials_fall_into_groups(tmp_path: Path):
    job = factory.job(constraints=[{"metric": "accuracy", "min": 0.85}, {"metric": "eer", "max": 20}])
    report = factory.report(tmp_path, job, fail_every=7)
    groups = Groups.of(report)
    assert groups.front == report.front
    assert all(trial.figures["accuracy"] >= 0.85 for trial in (*groups.front, *groups.others))
    assert groups.infeasible
    assert all(trial.figures["accuracy"] < 0.85 for trial in groups.infeasible)
    shown_trials = len(groups.front) + len(groups.others) + len(groups.infeasible)
    assert shown_trials == sum(trial.succeeded for trial in report.trials)


def test_published_models_are_scored_as_the_job_scores(tmp_path: Path):
    two = factory.report(tmp_path, factory.job(eer={"metrics": ["macs", "params"]}), 0)
    found = {name: (eer, top1) for name, eer, top1 in published(two)}
    assert found["Swin-B"] == (pytest.approx(94.56, abs=0.01), 83.5)
    assert len(found) > 50


def test_published_models_need_accuracy_and_the_same_eer(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert published(factory.report(tmp_path / "a", factory.job(objectives=["accuracy", "macs"]), 0)) == []
    assert published(factory.report(tmp_path / "b", factory.job(eer={"metrics": ["params"]}), 0)) == []


def test_data_words(tmp_path: Path):
    words = data_words(factory.report(tmp_path, None, 0))
    assert words == "digits: 1,077 training and 360 validation images, 10 classes, 8 x 8 pixels"
