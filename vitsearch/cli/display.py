"""A running search on the screen: a live table in a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vitsearch.cli.screen import screen
from vitsearch.cli.session import Display
from vitsearch.messages import Progress

if TYPE_CHECKING:
    from vitsearch.search import Driver

LINE_EVERY_S = 10.0
DRAW_EVERY_S = 0.25


@contextmanager
def make_display(*, quiet: bool) -> Iterator[Display]:
    """A display for standard error; quiet ones show nothing."""
    if quiet:
        yield Display(on_step=lambda _: None, on_change=lambda _: None, on_stop=lambda _: None)
    elif sys.stderr.isatty():
        console = screen(stderr=True)
        with Live(Text(""), console=console, refresh_per_second=4, transient=True) as live:
            table = _Table(live)
            yield Display(on_step=table.step, on_change=table.change, on_stop=table.stop)
    else:
        lines = _Lines()
        yield Display(on_step=lines.step, on_change=lines.change, on_stop=lines.step)


class _Table:
    """What a terminal shows: the last step or the running trials, under a notice that stays.

    Args:
        live: The place on the screen.
        clock: Seconds from any fixed point.
    """

    def __init__(self, live: Live, clock: Callable[[], float] = time.monotonic) -> None:
        self._live, self._clock, self._notice = live, clock, ""
        self._drawn = -DRAW_EVERY_S
        self._view: RenderableType = Text("")

    def step(self, text: str) -> None:
        self._show(Text(f"… {text}", style="dim"))
        self._live.refresh()

    def change(self, driver: Driver) -> None:
        """The running trials, as often as an eye can follow: rounds of short trials are many more."""
        if self._clock() - self._drawn >= DRAW_EVERY_S:
            self._drawn = self._clock()
            self._show(live_view(driver.progress()))

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
        ended = driver.study.num_ended()
        if ended == self._ended and time.monotonic() - self._last < LINE_EVERY_S:
            return
        self._ended, self._last = ended, time.monotonic()
        print(headline(driver.progress()), file=sys.stderr, flush=True)


def headline(progress: Progress) -> str:
    """Counts, best accuracy, hypervolume and time left in one line."""
    parts = [f"{progress.ended}/{progress.trials} trials", f"front {progress.front}"]
    if progress.best_accuracy is not None:
        parts.append(f"best accuracy {100 * progress.best_accuracy:.1f} %")
    if progress.hypervolume is not None:
        parts.append(f"hypervolume {progress.hypervolume:.4g}")
    counts = {name: getattr(progress, name) for name in ("rejected", "duplicate", "failed", "infeasible")}
    parts += [f"{name} {count}" for name, count in counts.items() if count]
    parts.append(f"elapsed {duration(progress.elapsed_s)}")
    if progress.waits_for:
        parts.append(progress.waits_for)
    return " · ".join(
        [*parts, f"left about {duration(progress.left_s)}"] if progress.left_s is not None else parts
    )


def live_view(progress: Progress) -> Group:
    """The headline, a bar for the study, and a row for each worker."""
    table = Table(box=None, pad_edge=False, show_header=True, header_style="dim")
    for column in ("worker", "trial", "candidate", "epoch", "", "accuracy"):
        table.add_column(column)
    for worker in progress.workers:
        accuracy = "" if worker.accuracy is None else f"{100 * worker.accuracy:.1f} %"
        bar = ProgressBar(total=worker.epochs, completed=worker.epoch, width=20)
        epoch = f"{worker.epoch}/{worker.epochs}"
        table.add_row(worker.worker, str(worker.trial), worker.candidate, epoch, bar, accuracy)
    rows: list[RenderableType] = [Text(headline(progress), style="bold")]
    study_bar = Table.grid()  # a bar alone does not end its line
    study_bar.add_row(ProgressBar(total=progress.trials, completed=progress.ended, width=60))
    rows += [study_bar, table]
    more = progress.num_workers - len(progress.workers)
    return Group(*rows, Text(f"and {more} more workers", style="dim")) if more > 0 else Group(*rows)


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
