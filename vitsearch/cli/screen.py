"""The terminal, as every command writes to it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def screen(*, pipe_width: int | None = None, stderr: bool = False) -> Console:
    """A console that shows text as it is: in names from elsewhere may stand what rich takes for its markup.

    Args:
        pipe_width: Characters of a line where nobody's terminal says how many there are.
        stderr: Whether to write there.
    """
    from rich.console import Console

    console = Console(stderr=stderr, markup=False, emoji=False)
    if pipe_width is None or console.is_terminal or "COLUMNS" in os.environ:
        return console
    return Console(stderr=stderr, markup=False, emoji=False, width=pipe_width)


def day_and_time(seconds: float) -> str:
    """Local time to the minute; empty where no calendar has that time."""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
    except (ValueError, OverflowError, OSError):
        return ""
