"""Writing a bundle."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from importlib.metadata import version
from pathlib import Path

from vitsearch import __version__
from vitsearch.candidate import Candidate, load_candidate
from vitsearch.compress.quantize.mixed import remembered
from vitsearch.config import Spec
from vitsearch.cost import cost_of
from vitsearch.errors import ExportError, InputError
from vitsearch.export.bundle import Bundle, load, load_weights, network_input
from vitsearch.export.card import model_card
from vitsearch.export.contents import (
    CARD_FILE,
    METRICS_FILE,
    ONNX_FILE,
    PREPROCESS_FILE,
    BundleMetrics,
    Int8File,
    ModelFacts,
    OnnxCheck,
    Preprocess,
    SimulatedBits,
    Versions,
    eer_pct_of,
)
from vitsearch.export.folder import appearing_folder, require_free
from vitsearch.export.images import pixels_of
from vitsearch.export.int8_file import Int8Request, require_usable, write_int8
from vitsearch.export.onnx_file import check_onnx
from vitsearch.onnx import OnnxModel, export_onnx
from vitsearch.storage import DataSummary
from vitsearch.train.data.arrays import ImageArray
from vitsearch.trial import CANDIDATE_FILE, WEIGHTS_FILE


def export_bundle(
    *,
    candidate: Candidate,
    weights_folder: Path,
    data: DataSummary,
    facts: ModelFacts,
    images_NHWC: ImageArray,
    out: Path,
    overwrite: bool = False,
    int8: Int8Request | None = None,
    notes: str = "",
) -> Bundle:
    """Write a bundle; it appears at ``out`` complete and checked, or not at all.

    Args:
        candidate: What the network is.
        weights_folder: Folder that a trial saved its model in.
        data: The data set of the study.
        facts: What the study knows about the model.
        images_NHWC: Real images, uint8, on which ``model.onnx`` is compared with PyTorch; some 64 of the
            validation split.
        out: Folder to make.
        overwrite: Replace an older bundle at ``out``.
        int8: Add a file of 8-bit integers, for a candidate of these bits.
        notes: Markdown that ends the model card, as the person wrote it.

    Returns:
        The bundle, read back.

    Raises:
        InputError: ``out`` is taken, the weights are missing or damaged, or the candidate has other bits than
            ``int8`` needs.
        ExportError: The weights are another candidate's, the ONNX file computes something else, or the disk is
            full.
    """
    require_free(out, overwrite=overwrite)
    candidate = candidate.canonical()
    if int8 is not None:
        require_usable(int8, candidate, data)
    preprocess = _preprocess(candidate, data)
    _require_same_candidate(candidate, weights_folder)
    source = weights_folder / WEIGHTS_FILE
    if not source.is_file():
        raise InputError(
            "the trained weights are missing", where=str(source), remedy="export from the folder the study ran in"
        )
    model = load_weights(candidate, source, facts.weights_sha256)
    images_NCHW = network_input(pixels_of(images_NHWC, preprocess), preprocess)
    if not len(images_NCHW):
        raise InputError("at least one real image is needed to check model.onnx", field="images_NHWC")
    with appearing_folder(out, overwrite=overwrite) as folder:
        shutil.copyfile(source, folder / WEIGHTS_FILE)
        _write(folder / CANDIDATE_FILE, candidate)
        _write(folder / PREPROCESS_FILE, preprocess)
        a = candidate.architecture
        export_onnx(model, folder / ONNX_FILE, in_chans=a.in_chans, image_size=a.image_size)
        check = check_onnx(candidate, model, OnnxModel(folder / ONNX_FILE), images_NCHW)
        onnx_sha256 = hashlib.sha256((folder / ONNX_FILE).read_bytes()).hexdigest()
        integers = None if int8 is None else write_int8(int8, candidate, model, folder)
        simulated = SimulatedBits.of(candidate, remembered(candidate.precision, model.state_dict()))
        metrics = _metrics(candidate, simulated, data, facts, check, onnx_sha256, integers)
        _write(folder / METRICS_FILE, metrics)
        file_mb = source.stat().st_size / 1e6
        card = model_card(candidate, preprocess, metrics, weights_file_mb=file_mb, notes=notes)
        (folder / CARD_FILE).write_text(card, encoding="utf-8")
        bundle = load(folder)
    return dataclasses.replace(bundle, folder=out)


def _preprocess(candidate: Candidate, data: DataSummary) -> Preprocess:
    preprocess = Preprocess.of(data)
    if misfit := preprocess.misfit(candidate):
        raise ExportError(f"the data set does not fit the candidate: {misfit}")
    return preprocess


def _require_same_candidate(candidate: Candidate, weights_folder: Path) -> None:
    path = weights_folder / CANDIDATE_FILE
    if path.exists() and load_candidate(path).hash != candidate.hash:
        raise ExportError(f"{weights_folder} holds the weights of another candidate than {candidate.summary()}")


def _metrics(
    candidate: Candidate,
    simulated: SimulatedBits,
    data: DataSummary,
    facts: ModelFacts,
    check: OnnxCheck,
    onnx_sha256: str,
    int8: Int8File | None,
) -> BundleMetrics:
    cost = cost_of(candidate).after(facts.measured)
    return BundleMetrics(
        **{name: getattr(facts, name) for name in ModelFacts.model_fields},
        candidate_hash=candidate.hash,
        cost=cost,
        eer_pct=eer_pct_of(facts, cost),
        simulated=simulated,
        data_fingerprint=data.fingerprint,
        num_train=data.num_train,
        num_val=data.num_val,
        num_test=data.num_test,
        num_skipped=len(data.skipped),
        chance_accuracy=data.chance_accuracy,
        onnx_sha256=onnx_sha256,
        onnx_check=check,
        int8=int8,
        versions=Versions(
            vitsearch=__version__, **{name: version(name) for name in ("torch", "timm", "onnx", "onnxruntime")}
        ),
    )


def _write(path: Path, content: Spec) -> None:
    path.write_text(content.model_dump_json(indent=2) + "\n", encoding="utf-8")
