"""The live table and the lines, over a driver made by hand."""

from __future__ import annotations

import io
from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from tests.unit.report.factory import job
from vitsearch.candidate import Architecture, Candidate
from vitsearch.cli.display import _Table, headline, live_view, make_display
from vitsearch.messages import EpochReport
from vitsearch.search import Driver
from vitsearch.search.progress import progress_of

CANDIDATE = Candidate(
    architecture=Architecture(
        image_size=8, in_chans=1, num_classes=10, patch_size=2, depth=4, width=64, heads=4, mlp_ratio=2.0
    )
)


def driver(
    accuracies: list[float] | None = None,
    running: dict[str, EpochReport | None] | None = None,
    elapsed_s: float = 30.0,
    trials: int = 8,
    time_limit_s: float | None = None,
    waits_for: str = "",
    **counts: int,
) -> Driver:
    """A driver with a front of these accuracies and these reports of its workers (trial 7 and on)."""
    spec = job(search={"trials": trials, "time_limit_s": time_limit_s}, train={"epochs": 5})
    front = [SimpleNamespace(figures={"accuracy": accuracy}) for accuracy in accuracies or []]
    workers = {
        name: SimpleNamespace(trial=7 + i, report=report)
        for i, (name, report) in enumerate((running or {}).items())
    }
    study = SimpleNamespace(
        front=front,
        trials={r.trial: SimpleNamespace(number=r.trial, candidate=CANDIDATE) for r in workers.values()},
        counts=lambda: Counter(counts),
        num_ended=lambda: sum(counts.get(fate, 0) for fate in ("done", "failed", "infeasible")),
        hypervolume=lambda: 12.345678,
    )
    executor = SimpleNamespace(waits_for=lambda: waits_for)
    made: Any = SimpleNamespace(
        job=spec, study=study, budget=SimpleNamespace(elapsed_s=elapsed_s), running=workers, executor=executor
    )
    made.progress = lambda: progress_of(made)
    return cast("Driver", made)


def report(epoch: int, accuracy: float | None) -> EpochReport:
    return EpochReport(
        trial=7, epoch=epoch, epochs=5, train_loss=1.0, accuracy=accuracy, learning_rate=1e-3, images_per_s=100.0
    )


def drawn(one: Driver) -> list[str]:
    console = Console(width=160, record=True, force_terminal=True, file=io.StringIO())
    console.print(live_view(one.progress()))
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_the_headline_counts_and_names_the_best():
    one = driver([0.5, 0.9312], done=3, failed=1, rejected=2, duplicate=4)
    assert headline(one.progress()) == (
        "4/8 trials · front 2 · best accuracy 93.1 % · hypervolume 12.35 · rejected 2 · duplicate 4 · failed 1"
        " · elapsed 30 s · left about 30 s"
    )


def test_the_headline_says_what_measurements_wait_for():
    waiting = "waiting for target jetson: away for 30 s, 2 to measure"
    assert headline(driver(waits_for=waiting).progress()).endswith(f"elapsed 30 s · {waiting}")
    assert "waiting" not in headline(driver().progress())


def test_the_headline_before_anything_has_ended():
    assert headline(progress_of(driver(elapsed_s=61.0))) == "0/8 trials · front 0 · elapsed 1 min 01 s"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"elapsed_s": 10.0, "done": 0}, None),
        ({"elapsed_s": 10.0, "done": 2}, 30.0),
        ({"elapsed_s": 10.0, "done": 1, "failed": 2, "infeasible": 1}, 10.0),
        ({"elapsed_s": 10.0, "done": 8}, 0.0),
        ({"elapsed_s": 10.0, "done": 9}, 0.0),
        ({"elapsed_s": 10.0, "done": 2, "time_limit_s": 25.0}, 15.0),
        ({"elapsed_s": 40.0, "done": 2, "time_limit_s": 25.0}, 0.0),
    ],
)
def test_time_left_is_the_pace_so_far_within_the_limit(settings: dict[str, Any], expected: float | None):
    assert progress_of(driver(**settings)).left_s == expected


@pytest.mark.parametrize(("elapsed_s", "words"), [(59.4, "59 s"), (3599, "59 min 59 s"), (7260, "2 h 01 min")])
def test_durations(elapsed_s: float, words: str):
    assert headline(progress_of(driver(elapsed_s=elapsed_s))).endswith(f"elapsed {words}")


def test_the_table_has_a_bar_for_the_study_and_a_row_with_a_bar_for_each_worker():
    one = driver([0.9], {"w1": report(5, 0.815), "w0": report(2, None), "w2": None}, done=2)
    lines = drawn(one)
    assert lines[0] == headline(one.progress())
    assert len(lines[1]) == 60
    assert set(lines[1]) <= set("━╸╺")
    assert lines[2].split() == ["worker", "trial", "candidate", "epoch", "accuracy"]
    first, second, third = lines[3:]
    assert first.split()[:3] == ["w0", "8", "d4"]
    assert "d4 w64 h4 p2 m2" in first
    assert "2/5" in first
    assert "%" not in first
    assert second.split()[:2] == ["w1", "7"]
    assert second.endswith("81.5 %")
    assert "0/5" in third
    assert all(line.count("━") + line.count("╸") + line.count("╺") == 20 for line in (first, second, third))


def test_the_table_is_drawn_a_few_times_a_second_however_often_trials_end(monkeypatch: pytest.MonkeyPatch):
    now, drawn_at = [100.0], []
    live: Any = SimpleNamespace(update=lambda _: drawn_at.append(now[0]), refresh=lambda: None)
    table = _Table(live, clock=lambda: now[0])
    one = driver([0.9], {"w0": report(2, None)}, done=2)
    asked: list[float] = []
    monkeypatch.setattr(one, "progress", lambda: asked.append(now[0]) or progress_of(one))
    for _ in range(200):
        table.change(one)
        now[0] += 0.01
    assert 4 <= len(drawn_at) <= 10
    assert asked == drawn_at
    table.step("delivering")
    table.change(one)
    assert len(drawn_at) == len(asked) + 1, "a step is shown at once"


def test_lines_are_written_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]):
    with make_display(quiet=False) as display:
        display.on_step("reading: 1")
        display.on_step("reading: 2")
        display.on_change(driver(done=1))
        display.on_change(driver(done=1))
        display.on_change(driver(done=2))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "… reading: 1"
    assert [line[:10] for line in lines[1:]] == ["1/8 trials", "2/8 trials"]


def test_a_quiet_display_says_nothing(capsys: pytest.CaptureFixture[str]):
    with make_display(quiet=True) as display:
        display.on_step("reading")
        display.on_change(driver(done=1))
    assert capsys.readouterr() == ("", "")
