"""How actors end: what Ray says of it, in one line."""

from __future__ import annotations

import re
import textwrap

import ray

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


def _cause(lines: list[str]) -> str:
    """What stands below Ray's general first line and the indented ids of the actor."""
    place = [line.replace("\tip: ", "on ") + ":" for line in lines if line.startswith("\tip: ")]
    cause = [line for line in lines[1:] if not line.startswith("\t")]
    return " ".join([*place, *cause]) if cause else lines[0]
