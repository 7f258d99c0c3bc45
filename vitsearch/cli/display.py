"""A running search on the screen: a live table in a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vitsearch.cli.session import Display

if TYPE_CHECKING:
    from vitsearch.search import Driver

LINE_EVERY_S = 10.0


@contextmanager
def make_display(*, quiet: bool) -> Iterator[Display]:
    """A display for standard error; quiet ones show nothing."""
    if quiet:
        yield Display(on_step=lambda _: None, on_change=lambda _: None, on_stop=lambda _: None)
    elif sys.stderr.isatty():
        console = Console(stderr=True)
        with Live(Text(""), console=console, refresh_per_second=4, transient=True) as live:
            table = _Table(live)
            yield Display(on_step=table.step, on_change=table.change, on_stop=table.stop)
    else:
        lines = _Lines()
        yield Display(on_step=lines.step, on_change=lines.change, on_stop=lines.step)


class _Table:
    """What a terminal shows: the last step or the running trials, under a notice that stays."""

    def __init__(self, live: Live) -> None:
        self._live, self._notice = live, ""
        self._view: RenderableType = Text("")

    def step(self, text: str) -> None:
        self._show(Text(f"… {text}", style="dim"))
        self._live.refresh()

    def change(self, driver: Driver) -> None:
        self._show(live_view(driver))

    def stop(self, text: str) -> None:
        self._notice = text
        self._show(self._view)

    def _show(self, view: RenderableType) -> None:
        self._view = view
        self._live.update(Group(Text(self._notice, style="bold yellow"), view) if self._notice else view)


class _Lines:
    """One line whenever a trial ends, and at least one every ten seconds."""

    def __init__(self) -> None:
        self._ended, self._last, self._step = -1, 0.0, ""

    def step(self, text: str) -> None:
        """One line for each new step; of a step that only counts on, one every ten seconds."""
        kind, now = text.partition(":")[0], time.monotonic()
        if kind == self._step and now - self._last < LINE_EVERY_S:
            return
        self._step, self._last = kind, now
        print(f"… {text}", file=sys.stderr, flush=True)

    def change(self, driver: Driver) -> None:
        """The headline, when a trial has ended or ten seconds have passed."""
        counts = driver.study.counts()
        ended = sum(counts[fate] for fate in ("done", "failed", "infeasible"))
        if ended == self._ended and time.monotonic() - self._last < LINE_EVERY_S:
            return
        self._ended, self._last = ended, time.monotonic()
        print(headline(driver), file=sys.stderr, flush=True)


def headline(driver: Driver) -> str:
    """Counts, best accuracy, hypervolume and time left in one line."""
    counts = driver.study.counts()
    ended = sum(counts[fate] for fate in ("done", "failed", "infeasible"))
    parts = [f"{ended}/{driver.job.search.trials} trials", f"front {len(driver.study.front)}"]
    best = max((t.figures["accuracy"] for t in driver.study.front if "accuracy" in t.figures), default=None)
    if best is not None:
        parts += [f"best accuracy {100 * best:.1f} %", f"hypervolume {driver.study.hypervolume():.4g}"]
    parts += [
        f"{name} {counts[name]}" for name in ("rejected", "duplicate", "failed", "infeasible") if counts[name]
    ]
    parts.append(f"elapsed {_duration(driver.budget.elapsed_s)}")
    eta = eta_s(driver, ended)
    return " · ".join([*parts, f"left about {_duration(eta)}"] if eta is not None else parts)


def eta_s(driver: Driver, ended: int) -> float | None:
    """Seconds to go at the pace so far, bounded by the time budget."""
    spec, elapsed = driver.job.search, driver.budget.elapsed_s
    if not ended:
        return None
    by_trials = elapsed / ended * max(0, spec.trials - ended)
    return by_trials if spec.time_limit_s is None else min(by_trials, max(0.0, spec.time_limit_s - elapsed))


def live_view(driver: Driver) -> Group:
    """The headline, a bar for the study, and a row for each worker."""
    counts = driver.study.counts()
    ended = sum(counts[fate] for fate in ("done", "failed", "infeasible"))
    table = Table(box=None, pad_edge=False, show_header=True, header_style="dim")
    for column in ("worker", "trial", "candidate", "epoch", "", "accuracy"):
        table.add_column(column)
    for worker, running in sorted(driver.running.items()):
        report, trial = running.report, driver.study.trials[running.trial]
        epochs = report.epochs if report else driver.job.train.epochs
        epoch = report.epoch if report else 0
        accuracy = f"{100 * report.accuracy:.1f} %" if report and report.accuracy is not None else ""
        bar = ProgressBar(total=epochs, completed=epoch, width=20)
        table.add_row(worker, str(trial.number), trial.candidate.summary(), f"{epoch}/{epochs}", bar, accuracy)
    study_bar = Table.grid()  # a bar alone does not end its line
    study_bar.add_row(ProgressBar(total=driver.job.search.trials, completed=ended, width=60))
    return Group(Text(headline(driver), style="bold"), study_bar, table)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
