"""The front in terminals of several widths."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.report import factory
from vitsearch.cli.front_table import columns_of, print_front


@pytest.mark.parametrize("width", [40, 60, 80, 120, 180])
def test_numbers_stay_whole_at_every_width(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    report = factory.report(tmp_path)
    monkeypatch.setenv("COLUMNS", str(width))
    print_front(report)
    out = capsys.readouterr().out
    assert "…" not in out
    assert "accuracy %" in out
    assert "EER %" in out
    assert width < 180 or "size MB" in out
    assert width > 40 or "FLOPs" not in out
    assert report.front[0].candidate.summary().split(" · ")[0] in out


def test_objectives_come_first_and_all_are_there(tmp_path: Path):
    report = factory.report(tmp_path, factory.job(objectives=["throughput", "memory"]))
    titles = [column.title for column in columns_of(report)]
    assert titles[:3] == ["trial", "images/s", "memory MB"]
    assert "test %" not in titles  # nothing was retrained
