"""When a search has had enough."""

from __future__ import annotations

import time
from collections.abc import Callable

from vitsearch.config import SearchSpec

MAX_FRUITLESS = 200


class Budget:
    """Counts trials, seconds and fruitless asks.

    Args:
        spec: The limits.
        used_trials: Trained trials so far.
        used_s: Search time of earlier drivers.
        clock: Seconds from any fixed point.
    """

    def __init__(
        self, spec: SearchSpec, *, used_trials: int, used_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._spec, self._clock = spec, clock
        self._started = clock() - used_s
        self.started_trials = used_trials
        self.fruitless = 0

    @property
    def elapsed_s(self) -> float:
        """Search time over all drivers."""
        return self._clock() - self._started

    @property
    def end_reason(self) -> str | None:
        """Why no further trial starts; None while one may."""
        if self.started_trials >= self._spec.trials:
            return "trial budget used"
        if self._spec.time_limit_s is not None and self.elapsed_s >= self._spec.time_limit_s:
            return "time budget used"
        if self.fruitless >= MAX_FRUITLESS:
            return "space exhausted"
        return None

    def count_trial(self) -> None:
        """A candidate is going to be trained."""
        self.started_trials += 1
        self.fruitless = 0

    def count_fruitless(self) -> None:
        """An ask gave a rejected or repeated candidate."""
        self.fruitless += 1
