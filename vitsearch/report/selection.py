"""Naming one model of a front."""

from __future__ import annotations

import re

from vitsearch.errors import InputError, StudyError
from vitsearch.report.front import StudyReport
from vitsearch.storage import TrialRecord


def select_trial(report: StudyReport, select: str) -> TrialRecord:
    """The trial that ``knee``, ``best-accuracy``, ``best-eer`` or ``trial=N`` names.

    Raises:
        InputError: The words are others, or trial N is not on the front.
        StudyError: The front is empty.
    """
    if not report.front:
        raise StudyError(f"study {report.study.name!r} has no front yet: no trial has succeeded")
    if select == "knee":
        assert report.knee is not None
        return report.knee
    if select == "best-accuracy":
        return max(report.front, key=lambda t: t.figures["accuracy"])
    if select == "best-eer":
        return min(report.front, key=lambda t: t.figures.get("eer_pct", float("inf")))
    match = re.fullmatch(r"trial=(\d+)", select)
    if match is None:
        raise InputError("must be knee, best-accuracy, best-eer or trial=N", where="vitsearch export",
                         field="--select", value=select)  # fmt: skip
    number = int(match.group(1))
    for trial in report.front:
        if trial.number == number:
            return trial
    numbers = ", ".join(str(t.number) for t in report.front)
    raise InputError("names no member of the front, and only their weights are kept", where="vitsearch export",
                     field="--select", value=select, remedy=f"choose one of trials {numbers}")  # fmt: skip
