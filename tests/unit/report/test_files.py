"""What a study leaves in its folder and in MLflow, whatever cannot be drawn."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from PIL import Image

from tests.unit.report import factory
from vitsearch.report import files, plots
from vitsearch.report.files import REPORT_FILES, write_report_files


@pytest.mark.parametrize("name", [r"$\frac$", "a$^$b", "$$x_{", r"100 $ and \ $5"])
def test_a_name_that_looks_like_broken_mathematics_is_drawn_as_it_is(name: str, tmp_path: Path):
    report = factory.report(tmp_path, factory.job(dataset={"kind": "npz", "path": f"/data/{name}"}), 3)
    plots.save_front_png(report, tmp_path / "front.png")
    with Image.open(tmp_path / "front.png") as picture:
        assert picture.size == (1200, 800)


def test_what_cannot_be_drawn_is_told_and_the_rest_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise ValueError("no font for https://me:geheim@h\nat all")

    report = factory.report(tmp_path, None, 3)
    assert write_report_files(report, tmp_path) == []
    before = {name: (tmp_path / name).read_bytes() for name in REPORT_FILES}
    (tmp_path / "trials.csv").unlink()
    monkeypatch.setattr(files, "save_front_png", fail)
    assert write_report_files(report, tmp_path) == ["pareto.png cannot be drawn (no font for https://***@h)"]
    assert {name: (tmp_path / name).read_bytes() for name in REPORT_FILES} == before


def test_a_full_disk_is_an_error_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "save_front_png", fail)
    with pytest.raises(OSError, match="No space left"):
        write_report_files(factory.report(tmp_path, None, 3), tmp_path)
