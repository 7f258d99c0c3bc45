"""From a study to a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from vitsearch.artifacts import Workspace, join, workspace
from vitsearch.cli.finding import FoundStudy
from vitsearch.cli.session import load_data
from vitsearch.errors import InputError, hide_passwords
from vitsearch.export import INT8_KINDS, Bundle, Int8Kind, Int8Request, export_bundle, facts_of, require_int8
from vitsearch.messages import TrialResult
from vitsearch.profile.choice import one_line
from vitsearch.report import StudyReport, select_trial
from vitsearch.search import SAMPLE_FILE
from vitsearch.storage import DataSummary, TrialRecord
from vitsearch.train.data.arrays import ImageArray
from vitsearch.train.tensors import TensorData


def export_trial(
    found: FoundStudy, select: str, out: Path, *, overwrite: bool = False, int8: str | None = None
) -> Bundle:
    """Write the selected model of a study as a bundle.

    A model that was retrained at full length is exported with those weights. A file of 8-bit integers needs the
    job's images, to choose ranges and to be scored.

    Raises:
        InputError: The selection names no exportable trial, ``out`` is taken, the study's sample of images is
            damaged, or there can be no file of 8-bit integers: the model has other bits, or the images are gone or
            changed.
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
            images_NHWC=_sample(beside, report.data),
            out=out,
            overwrite=overwrite,
            int8=integers,
        )


def _sample(beside: Workspace, data: DataSummary) -> ImageArray:
    """The validation images that lie beside a study."""
    try:
        with (beside.folder / SAMPLE_FILE).open("rb") as file:  # np.load would leave one open that is no archive
            images: object = np.load(file, allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # a damaged header can raise anything
        raise _damaged(beside, one_line(error)) from error
    if not isinstance(images, np.ndarray):
        raise _damaged(beside, "it is an archive")
    wanted = (data.image_size, data.image_size, data.in_chans)
    if images.dtype != np.uint8 or images.shape[1:] != wanted or not len(images):
        raise _damaged(beside, f"it holds {images.dtype} of shape {images.shape}")
    return images


def _damaged(beside: Workspace, reason: str) -> InputError:
    return InputError(
        f"is damaged ({reason}), and exports are checked on the images in it",
        where=hide_passwords(join(beside.place, SAMPLE_FILE)), remedy="restore it from a copy of the study",
    )  # fmt: skip


def _int8_request(word: str, trial: TrialRecord, report: StudyReport) -> Int8Request:
    kind: Int8Kind | None = next((one for one in INT8_KINDS if one == word), None)
    if kind is None:
        raise InputError("must be dynamic or qdq", where="vitsearch export", field="--int8", value=word)
    require_int8(trial.candidate, kind)  # before the images are read
    return Int8Request(kind=kind, data=TensorData(load_data(report.study.job), torch.device("cpu")))
