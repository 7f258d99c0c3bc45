"""The front as a table that fits the terminal: what matters least is left out, numbers stay whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rich.table import Table

from vitsearch.cli.screen import screen
from vitsearch.config import METRICS
from vitsearch.messages import TrialResult
from vitsearch.report import StudyReport
from vitsearch.storage import TrialRecord

PIPE_WIDTH = 180
BORDERS = 3  # of each column: a line and a blank on either side


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column.

    Attributes:
        title: Its heading.
        cells: One for each front member.
    """

    title: str
    cells: list[str]

    @property
    def width(self) -> int:
        """Characters it takes with its borders."""
        return max(len(text) for text in (self.title, *self.cells)) + BORDERS


SHOWN: dict[str, tuple[str, Callable[[float], str]]] = {
    "accuracy": ("accuracy %", lambda v: f"{100 * v:.2f}"),
    "eer_pct": ("EER %", lambda v: f"{v:.3f}"),
    "test": ("test %", lambda v: f"{100 * v:.2f}"),
    "num_params": ("params", lambda v: f"{v:,.0f}"),
    "num_macs": ("FLOPs (MACs)", lambda v: f"{v:,.0f}"),
    "bits": ("bits", lambda v: f"{v:.3g}"),
    "size_mb": ("size MB", lambda v: f"{v:.3g}"),
    "latency_ms_p50": ("p50 ms", lambda v: f"{v:.3g}"),
    "images_per_s": ("images/s", lambda v: f"{v:,.0f}"),
    "peak_memory_mb": ("memory MB", lambda v: f"{v:.3g}"),
    "energy_mj": ("mJ/image", lambda v: f"{v:.3g}"),
}


def print_front(report: StudyReport) -> None:
    """The front as a table; candidates stand below it where the terminal is narrow."""
    console = screen(pipe_width=PIPE_WIDTH)
    shown, beside = fitting(columns_of(report), candidates_of(report), console.width)
    table = Table(title=f"Pareto front of {report.study.name}", title_justify="left")
    for column in shown:
        table.add_column(column.title, justify="right", no_wrap=True)
    if beside:
        table.add_column("candidate", no_wrap=True)
    knee = report.knee.number if report.knee else None
    summaries = [trial.candidate.summary() for trial in report.front]
    for i, trial in enumerate(report.front):
        cells = [column.cells[i] for column in shown] + ([summaries[i]] if beside else [])
        table.add_row(*cells, style="bold" if trial.number == knee else None)
    console.print(table)
    if not beside:
        for trial, summary in zip(report.front, summaries, strict=True):
            console.print(f"{trial.number}: {summary}", highlight=False)
    words = f"hypervolume {report.hypervolume:.5g} · {len(report.front)} models"
    if any(column.title == "EER %" for column in shown):
        words += f" · EER against {report.job.eer.reference.name} over {', '.join(report.job.eer.metrics)}"
    console.print(words)


def columns_of(report: StudyReport) -> list[Column]:
    """Trial and objectives, then what else is known, the most important first."""
    knee = report.knee.number if report.knee else None
    numbers = [f"{t.number}{' knee' if t.number == knee else ''}" for t in report.front]
    asked = [METRICS[name].key for name in report.job.objectives]
    bounded = [METRICS[constraint.metric].key for constraint in report.job.constraints]
    others = [key for key in SHOWN if key not in {"images_per_s", "peak_memory_mb", "energy_mj"}]
    found = [Column(title="trial", cells=numbers)]
    for key in dict.fromkeys([*asked, *bounded, *others]):
        title, write = SHOWN[key]
        values = [_figure(trial, key) for trial in report.front]
        cells = ["" if value is None else write(value) for value in values]
        if key in asked or any(cells):
            found.append(Column(title=title, cells=cells))
    return found


def candidates_of(report: StudyReport) -> Column:
    """The candidates in short."""
    return Column(title="candidate", cells=[trial.candidate.summary() for trial in report.front])


def fitting(columns: list[Column], candidates: Column, width: int) -> tuple[list[Column], bool]:
    """The columns that fit, and whether the candidates fit beside the first three."""
    room = width - 1
    beside = sum(column.width for column in columns[:3]) + candidates.width <= room
    room -= candidates.width if beside else 0
    shown: list[Column] = []
    for i, column in enumerate(columns):
        if column.width > room and i:
            break
        shown.append(column)
        room -= column.width
    return shown, beside


def _figure(trial: TrialRecord, key: str) -> float | None:
    if key == "test":
        return trial.final.accuracy if isinstance(trial.final, TrialResult) else None
    return trial.figures.get(key)
