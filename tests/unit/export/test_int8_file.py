"""Bundles with a file of 8-bit integers."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.unit.candidate.factory import micro
from tests.unit.export.factory import CANDIDATES, exported, normalized, random_model
from tests.unit.train.factory import CPU
from vitsearch.errors import ExportError, InputError
from vitsearch.export import INT8_KINDS, Bundle, Int8Request, int8_file, load, write
from vitsearch.train.data import ImageData
from vitsearch.train.tensors import TensorData

W8A8 = micro(tokens={"reducer": "tome", "r": 2}, precision={"weight_bits": 8, "activation_bits": 8})
INTEGER_PRODUCT = {"dynamic": "MatMulInteger", "qdq": "QuantizeLinear"}


def request(kind: Any, data: ImageData) -> Int8Request:
    return Int8Request(kind=kind, data=TensorData(data, CPU))


@pytest.fixture(
    scope="module",
    params=[pytest.param(kind, marks=() if kind == "qdq" else pytest.mark.slow) for kind in INT8_KINDS],
)
def bundle(request: pytest.FixtureRequest, data: ImageData, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp(request.param)
    one = Int8Request(kind=request.param, data=TensorData(data, CPU))
    return exported(W8A8, data, folder, int8=one)


def test_the_file_computes_in_integers_and_its_figures_are_its_own(bundle: Bundle, data: ImageData) -> None:
    known, onnx_int8 = bundle.metrics.int8, bundle.onnx_int8
    assert known is not None
    assert onnx_int8 is not None
    path = bundle.folder / "model.int8.onnx"
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert INTEGER_PRODUCT[known.kind] in operators
    assert known.file_size_mb == path.stat().st_size / 1e6
    assert path.stat().st_size < 0.6 * (bundle.folder / "model.onnx").stat().st_size
    assert known.images == len(data.val)
    labels = np.concatenate([onnx_int8(part.numpy()).argmax(1) for part in normalized(data, data.val).split(64)])
    simulated = np.array([found.label for found in bundle.predict(data.images_NHWC[data.val])])
    assert known.accuracy_val == pytest.approx((labels == data.labels_N[data.val]).mean(), abs=2 / known.images)
    assert known.agreement == pytest.approx((labels == simulated).mean(), abs=0.01)
    assert known.agreement > 0.9
    assert len(set(labels)) > 2  # so that agreement says something


def test_card_and_folder_know_it(bundle: Bundle, tmp_path: Path) -> None:
    card = (bundle.folder / "MODEL_CARD.md").read_text()
    known = bundle.metrics.int8
    assert known is not None
    assert "| `model.int8.onnx` |" in card
    assert f"{100 * known.accuracy_val:.2f} % of {known.images} validation images" in card
    assert ("chosen beforehand on training images" in card) == (known.kind == "qdq")
    content = (bundle.folder / "model.int8.onnx").read_bytes()
    assert str(bundle.folder.parent).encode() not in content
    assert b"site-packages" not in content
    copy = Path(shutil.copytree(bundle.folder, tmp_path / "copy"))
    assert load(copy).metrics == bundle.metrics
    (copy / "model.int8.onnx").write_bytes(content[:-1])
    with pytest.raises(InputError, match=r"model\.int8\.onnx: must have the checksum"):
        _ = load(copy).onnx_int8


def test_a_bundle_without_one_says_so(bundle_of: Any) -> None:
    plain = bundle_of("tome_w8a8_pruned")
    assert plain.metrics.int8 is None
    assert plain.onnx_int8 is None
    assert "int8.onnx" not in (plain.folder / "MODEL_CARD.md").read_text()


def test_such_a_bundle_can_be_replaced(
    bundle: Bundle, data: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = bundle.folder / "model.onnx"
    monkeypatch.setattr(write, "export_onnx", lambda _, path, **__: shutil.copyfile(source, path))
    shutil.copytree(bundle.folder, tmp_path / "bundle")
    replaced = exported(W8A8, data, tmp_path, overwrite=True)
    assert not (replaced.folder / "model.int8.onnx").exists()


@pytest.mark.parametrize("kind", INT8_KINDS)
def test_a_model_of_other_bits_is_refused(kind: str, data: ImageData, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs a model whose weights and activations have 8 bits") as caught:
        exported(CANDIDATES["dense"], data, tmp_path, int8=request(kind, data))
    assert caught.value.field == "--int8"
    assert "choose a W8A8 member" in caught.value.remedy
    assert not (tmp_path / "bundle").exists()


def test_images_of_another_study_are_refused(data: ImageData, tmp_path: Path) -> None:
    other = dataclasses.replace(data, fingerprint="another")
    with pytest.raises(InputError, match="must be the data set of the study"):
        exported(W8A8, data, tmp_path, int8=request("dynamic", other))


def test_outputs_that_are_not_finite_are_refused(
    data: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nan = lambda _: lambda images: np.full((len(images), 10), np.nan, np.float32)  # noqa: E731
    monkeypatch.setattr(int8_file, "OnnxModel", nan)
    with pytest.raises(ExportError, match=r"model\.int8\.onnx are not finite"):
        int8_file.write_int8(request("qdq", data), W8A8, random_model(W8A8, data), tmp_path)


def test_nothing_to_score_on_is_refused(data: ImageData, tmp_path: Path) -> None:
    none = dataclasses.replace(data, val=data.val[:0])
    with pytest.raises(InputError, match="needs validation images"):
        exported(W8A8, data, tmp_path, int8=request("dynamic", none))
    assert not (tmp_path / "bundle").exists()
