"""Naming one model of a front."""

from __future__ import annotations

import re

from vitsearch.errors import InputError, StudyError
from vitsearch.report.front import StudyReport
from vitsearch.storage import TrialRecord

WORDS = ("knee", "best-accuracy", "best-eer")


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
    number = _number_in(select, "vitsearch export")
    for trial in report.front:
        if trial.number == number:
            return trial
    numbers = ", ".join(str(t.number) for t in report.front)
    raise InputError("names no member of the front, and only their weights are kept", where="vitsearch export",
                     field="--select", value=select, remedy=f"choose one of trials {numbers}")  # fmt: skip


def find_trial(report: StudyReport, select: str) -> TrialRecord:
    """The trial that the same words name, whatever has become of it.

    Raises:
        InputError: The words are others, or there is no trial N.
        StudyError: The front is empty, and the words name one of its members.
    """
    if select not in WORDS:
        number = _number_in(select, "vitsearch show")
        for trial in report.trials:
            if trial.number == number:
                return trial
        known = f"trials are numbered 0 to {report.trials[-1].number}" if report.trials else "it has no trial yet"
        raise InputError(f"names no trial of study {report.study.name!r}", where="vitsearch show",
                         field="--select", value=select, remedy=known)  # fmt: skip
    if not report.front and report.trials:
        raise StudyError(
            f"study {report.study.name!r} has no front yet: no trial has succeeded; --select trial=N shows "
            f"any of its trials, N up to {report.trials[-1].number}"
        )
    return select_trial(report, select)


def _number_in(select: str, where: str) -> int:
    match = re.fullmatch(r"trial=(\d+)", select)
    if match is None:
        raise InputError("must be knee, best-accuracy, best-eer or trial=N", where=where, field="--select",
                         value=select)  # fmt: skip
    return int(match.group(1))
