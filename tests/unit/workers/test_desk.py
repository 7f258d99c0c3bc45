from __future__ import annotations

from typing import Any

import pytest
import ray

import workers.desk
from workers.desk import has_died


class Ray:
    """Raises what is fetched."""

    exceptions = ray.exceptions

    def get(self, reference: Exception, **_: object) -> Any:
        raise reference


@pytest.mark.parametrize(
    ("error", "died"),
    [
        (ray.exceptions.RayActorError(), True),
        (ray.exceptions.OutOfMemoryError("1 worker(s) were killed"), True),
        (ray.exceptions.RayTaskError("run", "Traceback", OSError()), False),
        (ray.exceptions.GetTimeoutError("not yet"), False),
    ],
)
def test_a_process_that_was_killed_for_want_of_memory_has_died_too(
    error: Exception, died: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.desk, "ray", Ray())
    assert has_died(error) is died
