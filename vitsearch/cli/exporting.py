"""From a run's folder to a bundle."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from vitsearch.cli.session import SAMPLE_FILE, open_study
from vitsearch.errors import InputError, StudyError
from vitsearch.export import Bundle, export_bundle, facts_of
from vitsearch.messages import TrialResult
from vitsearch.report import StudyReport
from vitsearch.search import artifact_dir, final_dir
from vitsearch.storage import TrialRecord


def export_trial(folder: Path, select: str, out: Path, *, overwrite: bool = False) -> Bundle:
    """Write the selected model of a run as a bundle.

    A model that was retrained at full length is exported with those weights.

    Raises:
        InputError: The selection names no exportable trial, or ``out`` is taken.
        StudyError: The run has found nothing yet.
    """
    report = StudyReport.load(open_study(folder))
    trial = select_trial(report, select)
    retrained = isinstance(trial.final, TrialResult)
    weights = final_dir(folder, trial.number) if retrained else artifact_dir(folder, trial.number)
    return export_bundle(
        candidate=trial.candidate,
        weights_folder=weights,
        data=report.data,
        facts=facts_of(report.study, trial),
        images_NHWC=np.load(folder / SAMPLE_FILE, allow_pickle=False),
        out=out,
        overwrite=overwrite,
    )


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
