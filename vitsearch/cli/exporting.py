"""From a study to a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from vitsearch.artifacts import workspace
from vitsearch.cli.finding import FoundStudy
from vitsearch.cli.session import load_data
from vitsearch.errors import InputError
from vitsearch.export import INT8_KINDS, Bundle, Int8Kind, Int8Request, export_bundle, facts_of, require_int8
from vitsearch.messages import TrialResult
from vitsearch.report import StudyReport, select_trial
from vitsearch.search import SAMPLE_FILE
from vitsearch.storage import TrialRecord
from vitsearch.train.tensors import TensorData


def export_trial(
    found: FoundStudy, select: str, out: Path, *, overwrite: bool = False, int8: str | None = None
) -> Bundle:
    """Write the selected model of a study as a bundle.

    A model that was retrained at full length is exported with those weights. A file of 8-bit integers needs the
    job's images, to choose ranges and to be scored.

    Raises:
        InputError: The selection names no exportable trial, ``out`` is taken, or there can be no file of 8-bit
            integers: the model has other bits, or the images are gone or changed.
        StudyError: The run has found nothing yet.
    """
    report = StudyReport.load(found.store)
    trial = select_trial(report, select)
    retrained = isinstance(trial.final, TrialResult)
    places = found.places
    weights = places.final(trial.number) if retrained else places.trial(trial.number)
    integers = None if int8 is None else _int8_request(int8, trial, report)
    with workspace(weights) as place, workspace(places.root, [SAMPLE_FILE]) as beside:
        return export_bundle(
            candidate=trial.candidate,
            weights_folder=place.folder,
            data=report.data,
            facts=facts_of(report.study, trial),
            images_NHWC=np.load(beside.folder / SAMPLE_FILE, allow_pickle=False),
            out=out,
            overwrite=overwrite,
            int8=integers,
        )


def _int8_request(word: str, trial: TrialRecord, report: StudyReport) -> Int8Request:
    kind: Int8Kind | None = next((one for one in INT8_KINDS if one == word), None)
    if kind is None:
        raise InputError("must be dynamic or qdq", where="vitsearch export", field="--int8", value=word)
    require_int8(trial.candidate, kind)  # before the images are read
    return Int8Request(kind=kind, data=TensorData(load_data(report.study.job), torch.device("cpu")))
