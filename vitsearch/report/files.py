"""The files that a study leaves in its folder and in MLflow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vitsearch.errors import first_line
from vitsearch.report.front import StudyReport
from vitsearch.report.plots import front_html, save_front_png
from vitsearch.report.tables import trials_csv

REPORT_FILES = ("pareto.png", "pareto.html", "trials.csv")


def write_report_files(report: StudyReport, folder: Path) -> list[str]:
    """The front as picture, page and table.

    Args:
        report: The study.
        folder: Where ``REPORT_FILES`` go.

    Returns:
        What cannot be drawn, in a few words each: a study is worth more than its pictures.

    Raises:
        OSError: The folder cannot be written.
    """
    writers: dict[str, Callable[[Path], object]] = {
        "pareto.png": lambda path: save_front_png(report, path),
        "pareto.html": lambda path: path.write_text(front_html(report), encoding="utf-8"),
        "trials.csv": lambda path: path.write_text(trials_csv(report), encoding="utf-8"),
    }
    problems = []
    for name in REPORT_FILES:
        try:
            writers[name](folder / name)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a drawing library raises about what it is given
            problems.append(f"{name} cannot be drawn ({first_line(error)})")
    return problems
