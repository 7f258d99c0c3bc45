"""How actors end: what Ray says of it, in one line, and whether a trial was at fault."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import ray

DEATHS = (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError)
"""What is raised for all that an actor still owes once its process is gone; the second is no kind of the first."""

MOST_CHARACTERS = 300


def reason_of(error: Exception) -> str:
    """One line for people: what an actor raised, or how and where it died."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines() or [type(error).__name__]
    if isinstance(error, ray.exceptions.RayTaskError) or "its creation task" in lines[0]:
        reason = lines[-1].removeprefix("vitsearch.errors.MeasurementError: ")
    elif isinstance(error, ray.exceptions.RayActorError):
        reason = _cause(lines)
    else:
        reason = lines[0]
    return textwrap.shorten(reason, MOST_CHARACTERS, placeholder=" ...")


def took_the_memory(error: Exception, actor: Any) -> bool:
    """Whether Ray killed this actor for want of memory on its node, of which no other process of Ray had more.

    When memory runs out Ray kills the latest actors first, however little they hold, and any that are idle along
    with them; so to be killed proves nothing. A kill by the kernel is not told, and looks like any other.

    Args:
        error: What was raised for a task of the actor.
        actor: Its handle.
    """
    if not isinstance(error, ray.exceptions.OutOfMemoryError):
        return False
    killed = re.search(rf"\(Actor\({actor._actor_id.hex()}\):.*\bpid=(\d+)", str(error))  # noqa: SLF001
    largest = re.search(r"^(\d+)\t[\d.]+\tray::", str(error), re.MULTILINE)  # they are told in order of size
    return killed is not None and largest is not None and killed[1] == largest[1]


def _cause(lines: list[str]) -> str:
    """What stands below Ray's general first line and the indented ids of the actor."""
    place = [line.replace("\tip: ", "on ") + ":" for line in lines if line.startswith("\tip: ")]
    cause = [line for line in lines[1:] if not line.startswith("\t")]
    return " ".join([*place, *cause]) if cause else lines[0]
