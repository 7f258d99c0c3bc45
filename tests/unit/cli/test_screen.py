"""Names from elsewhere on the terminal."""

from __future__ import annotations

import pytest

from vitsearch.cli.screen import day_and_time, screen


def test_what_looks_like_markup_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]):
    from rich.table import Table

    table = Table(title="[/red]")
    table.add_column("a")
    table.add_row("[bold]x[/nothing] :smile:")
    screen(pipe_width=80).print(table)
    screen().print("[/blue]")
    out = capsys.readouterr().out
    assert all(text in out for text in ("[/red]", "[bold]x[/nothing] :smile:", "[/blue]"))


@pytest.mark.parametrize("seconds", [1e300, -1e300, float("nan"), float("inf"), 10.0**17])
def test_a_time_that_no_calendar_has_is_empty(seconds: float):
    assert day_and_time(seconds) == ""


def test_a_time_has_minutes():
    assert len(day_and_time(1700000000.0)) == len("2023-11-14 22:13")
