"""One measurement at a time on a machine, whoever asks."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
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
from workers.exporter import Exporter
from workers.profiler import Profiler, machine_to_itself

HOLDER = """
import tempfile, time
from workers.profiler import machine_to_itself
tempfile.tempdir = {folder!r}
with machine_to_itself():
    print("held", flush=True)
    time.sleep({seconds})
"""


@pytest.fixture(autouse=True)
def lock_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def holder(folder: Path, seconds: float) -> subprocess.Popen[str]:
    code = HOLDER.format(folder=str(folder), seconds=seconds)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_measurement_waits_for_the_first(tmp_path: Path) -> None:
    with holder(tmp_path, 1.0) as process:
        with machine_to_itself():
            waited_for = process.wait(5)
        assert waited_for == 0


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    with holder(tmp_path, 600) as process:
        os.kill(process.pid, signal.SIGKILL)
        started = time.monotonic()
        with machine_to_itself():
            assert time.monotonic() - started < 30


def test_another_users_lock_file_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "vitsearch-measuring.lock").touch(mode=0o444)
    with machine_to_itself():
        assert not os.access(tmp_path / "vitsearch-measuring.lock", os.X_OK)


@pytest.mark.parametrize("with_images", [True, False])
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
