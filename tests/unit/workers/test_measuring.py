"""What becomes of measurements on a target, with processes that answer at once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from tests.unit.compress.factory import candidate
from tests.unit.train.factory import image_data
from vitsearch.compress import assemble
from vitsearch.config import TargetSpec
from vitsearch.errors import StudyError
from vitsearch.messages import MachineFacts, Profile, ProfileRequest
from vitsearch.search import ProfileDone
from vitsearch.testing import noop_profile
from vitsearch.trial import save_model
from workers import measuring, turns
from workers.exporter import Exporter
from workers.measuring import Target

FACTS = MachineFacts(
    host="desk", processor="p", num_processors=1, memory_mb=1.0, python="3.11", runtimes={}
).model_dump_json()


class Ray:
    """References are what they lead to, here and now; an error is raised where it is fetched."""

    exceptions = ray.exceptions

    def wait(self, references: list[Any], **_: object) -> tuple[list[Any], list[Any]]:
        return references, []

    def get(self, reference: Any) -> Any:
        if isinstance(reference, Exception):
            raise reference
        return reference

    def kill(self, actor: Any) -> None:
        pass


class Desk:
    """Makes files in this process."""

    def __init__(self) -> None:
        self.asked: list[ProfileRequest] = []
        data = image_data(size=8)
        meta = {name: getattr(data, name) for name in vars(data) if name not in {"images_NHWC", "labels_N"}}
        self._exporter = Exporter(data.images_NHWC, data.labels_N, meta)

    def export(self, request: ProfileRequest) -> Any:
        self.asked.append(request)
        try:
            return self._exporter.run(request.model_dump_json())
        except Exception as error:
            return error


@pytest.fixture(autouse=True)
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "FOLDER", tmp_path / "turns")
    monkeypatch.setattr(measuring, "ray", Ray())
    monkeypatch.setattr(measuring, "has_died", lambda _: False)
    monkeypatch.setattr(measuring, "RESTART_AFTER_S", 0.0)


def request_for(folder: Path, target: TargetSpec, known: tuple[Profile, ...] = ()) -> ProfileRequest:
    c = candidate()
    save_model(assemble(c), c, folder)
    return ProfileRequest(trial=0, artifact_dir=str(folder), candidate=c, target=target, known=known)


def profiler(place: str) -> Any:
    """Answers every question about its machine, and measures nothing."""

    def run(request_json: str, exported: Any) -> str:
        if isinstance(exported, Exception):
            raise exported
        return noop_profile(ProfileRequest.model_validate_json(request_json)).model_dump_json()

    return SimpleNamespace(facts=SimpleNamespace(remote=lambda: FACTS), run=SimpleNamespace(remote=run))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is a Linux device")
def test_a_full_disk_at_an_export_is_waited_for(tmp_path: Path) -> None:
    target, desk = Target(name="local", start=profiler), Desk()
    target.add(request_for(tmp_path, TargetSpec(runtime="onnxruntime")))
    full = tmp_path / "model.onnx.partial"
    full.symlink_to("/dev/full")
    while len(desk.asked) < 2:
        assert target.advance(desk) is None  # type: ignore[arg-type]
    full.unlink()
    while (done := target.advance(desk)) is None:  # type: ignore[arg-type]
        pass
    assert isinstance(done, ProfileDone)
    assert done.profile is not None, done.reason


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is a Linux device")
def test_a_disk_that_stays_full_ends_the_search_and_blames_no_candidate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "MOST_DEATHS", 2)
    target, desk = Target(name="local", start=profiler), Desk()
    target.add(request_for(tmp_path, TargetSpec(runtime="onnxruntime")))
    (tmp_path / "model.onnx.partial").symlink_to("/dev/full")
    with pytest.raises(StudyError, match=r"No space left on device.*; mend the store or make room there"):
        while True:
            assert target.advance(desk) is None  # type: ignore[arg-type]
    assert len(desk.asked) == measuring.MOST_DEATHS
