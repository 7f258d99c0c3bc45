"""The display of a submitted search: its state as JSON, for whoever asks the cluster."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from vitsearch.cli.session import Display
from vitsearch.messages import LiveState

if TYPE_CHECKING:
    from vitsearch.search import Driver

POST_EVERY_S = 1.0


class Board:
    """Posts the latest state, at most once a second while trials run.

    Args:
        study: Name of the study.
        post: Takes the state as JSON.
        clock: Seconds from any fixed point.
    """

    def __init__(
        self, study: str, post: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._state = LiveState(study=study)
        self._post, self._clock = post, clock
        self._page: Callable[[], str] = lambda: ""
        self._driver: Driver | None = None
        self._posted = -POST_EVERY_S

    def beside(self, other: Display) -> Display:
        """A display that shows everything here and there."""

        def step(text: str) -> None:
            other.on_step(text)
            self._show(step=text)

        def change(driver: Driver) -> None:
            other.on_change(driver)
            self._driver = driver
            if self._clock() - self._posted >= POST_EVERY_S:
                self._show(step="")

        def stop(text: str) -> None:
            other.on_stop(text)
            self._show(notice=text)

        def end(reason: str) -> None:
            other.on_end(reason)
            self._show(step="", ended=reason)

        return Display(on_step=step, on_change=change, on_stop=stop, on_page=self._take_page, on_end=end)

    def _take_page(self, page: Callable[[], str]) -> None:
        self._page = page

    def _show(self, **changes: object) -> None:
        self._posted = self._clock()
        progress = None if self._driver is None else self._driver.progress()
        update = {**changes, "progress": progress, "browse_url": self._page(), "at": time.time()}
        self._state = self._state.model_copy(update=update)
        self._post(self._state.model_dump_json())
