"""The state that a submitted search posts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from vitsearch.cli.board import Board
from vitsearch.cli.session import Display
from vitsearch.messages import LiveState, Progress


def test_each_state_is_posted_at_most_once_a_second_and_the_last_one_always():
    posted: list[LiveState] = []
    shown: list[str] = []
    now = [0.0]
    board = Board("digits", lambda text: posted.append(LiveState.model_validate_json(text)), clock=lambda: now[0])
    display = board.beside(
        Display(on_step=shown.append, on_change=lambda _: shown.append("change"), on_stop=shown.append)
    )
    ended = [0]
    driver: Any = SimpleNamespace(progress=lambda: Progress(trials=9, ended=ended[0]))

    display.on_step("starting")
    display.on_page(lambda: "http://host/#/experiments/1/runs")
    for now[0], ended[0] in ((0.5, 1), (1.0, 2), (1.9, 3), (2.0, 4), (2.5, 5)):
        display.on_change(driver)
    display.on_stop("stopping")
    display.on_end("stopped")

    assert shown == ["starting", *["change"] * 5, "stopping"]
    assert [(s.step, s.progress.ended if s.progress else None) for s in posted] == [
        ("starting", None), ("", 2), ("", 4), ("", 5), ("", 5),
    ]  # fmt: skip
    assert [s.browse_url for s in posted] == ["", *["http://host/#/experiments/1/runs"] * 4]
    assert posted[-1].notice == "stopping"
    assert posted[-1].ended == "stopped"
    assert posted[-1].study == "digits"
