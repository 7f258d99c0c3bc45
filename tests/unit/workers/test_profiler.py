"""What is sent to a target is measured there, and nothing else is needed."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import fields
from pathlib import Path

import pytest

from tests.unit.compress.factory import candidate
from tests.unit.train.factory import image_data
from vitsearch.compress import assemble
from vitsearch.config import TargetSpec
from vitsearch.messages import Profile, ProfileRequest
from vitsearch.testing import noop_profile
from vitsearch.trial import save_model
from workers import turns
from workers.exporter import Exporter
from workers.profiler import Profiler


@pytest.fixture(autouse=True)
def machine_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(turns, "FOLDER", tmp_path)


@pytest.mark.parametrize("with_images", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_profiler_measures_what_it_is_sent(with_images: bool, tmp_path: Path) -> None:
    """Files by value, images read-only as the object store hands them over; the study's folder is not there."""
    c = candidate(tokens={"reducer": "tome", "r": 2})
    save_model(assemble(c), c, tmp_path / "trial")
    data = image_data(size=8)
    target = TargetSpec(also=("pytorch_bf16", "onnxruntime"), warmup=0, repeats=3)
    request = ProfileRequest(trial=0, artifact_dir=str(tmp_path / "trial"), candidate=c, target=target)
    meta = {f.name: getattr(data, f.name) for f in fields(data) if f.name not in {"images_NHWC", "labels_N"}}
    exported = Exporter(data.images_NHWC, data.labels_N, meta).run(request.model_dump_json())
    assert exported.files.keys() == {"weights", "onnx"}
    assert not exported.errors
    shutil.rmtree(tmp_path / "trial")

    sent = (data.images_NHWC[data.val], data.labels_N[data.val], data.mean, data.std) if with_images else ()
    for array in sent[:2]:
        array.flags.writeable = False
    found = Profile.model_validate_json(Profiler(*sent).run(request.model_dump_json(), exported))
    measured = {one.conditions.runtime.partition(" ")[0]: one for one in (found, *found.others)}
    assert set(measured) == {"pytorch", "pytorch_bf16", "onnxruntime"}
    assert {one.conditions.inputs for one in measured.values()} == {
        "validation images" if with_images else "noise"
    }
    assert measured["pytorch"].accuracy is None
    assert (measured["pytorch_bf16"].accuracy is not None) == with_images
    assert not list(tmp_path.glob("vitsearch-*/")), "what it was sent is gone"


def test_what_is_known_is_not_exported(tmp_path: Path) -> None:
    c = candidate()
    save_model(assemble(c), c, tmp_path)
    request = ProfileRequest(
        trial=0, artifact_dir=str(tmp_path), candidate=c, target=TargetSpec(also=("onnxruntime",), repeats=3)
    )
    known = noop_profile(request)
    conditions = known.conditions.model_copy(update={"runtime": "onnxruntime 1.0"})
    request = request.model_copy(update={"known": (known.model_copy(update={"conditions": conditions}),)})
    data = image_data(size=8)
    meta = {f.name: getattr(data, f.name) for f in fields(data) if f.name not in {"images_NHWC", "labels_N"}}
    exported = Exporter(data.images_NHWC, data.labels_N, meta).run(request.model_dump_json())
    assert exported.files.keys() == {"weights"}
