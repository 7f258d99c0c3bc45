"""Ctrl-C and SIGTERM: politely where a search listens, at once everywhere else."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """Takes both signals while it is entered.

    The first one asks whoever listens to stop and goes on; a second one, or one that nobody listens to, raises
    ``KeyboardInterrupt``.
    """

    def __init__(self) -> None:
        self._number: int = signal.SIGINT
        self._asked = self._is_held = self._waits = False
        self._ask: Callable[[], None] | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def exit_code(self) -> int:
        """What shells expect after the first signal: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self._number

    def __enter__(self) -> Self:
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        for number in SIGNALS:
            signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def listening(self, ask: Callable[[], None]) -> Iterator[None]:
        """Within, the first signal calls ``ask``."""
        self._ask = ask
        try:
            yield
        finally:
            self._ask = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within, a signal waits: what is half started or half shut down takes the whole process with it."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        if self._waits:
            self._waits = False
            raise KeyboardInterrupt

    @contextmanager
    def whole(self, inner: AbstractContextManager[None]) -> Iterator[None]:
        """Enter ``inner``; signals wait while it is entered and while it is left."""
        with ExitStack() as stack:
            try:
                with self.held():
                    stack.enter_context(inner)
                yield
            finally:
                with self.held():
                    stack.close()

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        polite = not self._asked and self._ask is not None
        if not self._asked:
            self._asked, self._number = True, number
        if polite and self._ask is not None:
            self._ask()
        elif self._is_held:
            self._waits = True
        else:
            raise KeyboardInterrupt
