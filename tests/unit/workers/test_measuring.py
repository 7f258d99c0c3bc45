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


measured: list[ProfileRequest] = []


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
        except OSError as error:
            return error


@pytest.fixture(autouse=True)
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured.clear()
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
        measured.append(ProfileRequest.model_validate_json(request_json))
        return noop_profile(measured[-1]).model_dump_json()

    return SimpleNamespace(facts=SimpleNamespace(remote=lambda: FACTS), run=SimpleNamespace(remote=run))


def measured_by(target: Target, desk: Desk) -> ProfileDone:
    while (done := target.advance(desk)) is None:  # type: ignore[arg-type]
        pass
    return done


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is a Linux device")
def test_a_full_disk_at_an_export_is_waited_for(tmp_path: Path) -> None:
    target, desk = Target(name="local", start=profiler), Desk()
    target.add(request_for(tmp_path, TargetSpec(runtime="onnxruntime")))
    full = tmp_path / "model.onnx.partial"
    full.symlink_to("/dev/full")
    while len(desk.asked) < 2:
        assert target.advance(desk) is None  # type: ignore[arg-type]
    full.unlink()
    done = measured_by(target, desk)
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
        measured_by(target, desk)
    assert len(desk.asked) == measuring.MOST_DEATHS


def test_a_fallback_measures_all_itself(tmp_path: Path) -> None:
    """What is known of the target's own machine was told as the fallback's, and compared with its figures."""

    def start(place: str) -> Any:
        here = profiler(place)
        if place == "jetson":
            here.facts.remote = ray.exceptions.RayActorError
        return here

    spec = TargetSpec(name="jetson", runtime="pytorch", also=("pytorch_bf16",), wait_s=0.0, fallback="local")
    request = request_for(tmp_path, spec)
    earlier = noop_profile(request)
    reused = earlier.conditions.model_copy(update={"runtime": "pytorch 2.0", "reused": True})
    known = earlier.model_copy(update={"latency_ms_p50": 1e-9, "conditions": reused})
    target, desk = Target(name="jetson", start=start), Desk()
    target.add(request.model_copy(update={"known": (known,)}))
    done = measured_by(target, desk)
    assert [one.known for one in (*desk.asked, *measured)] == [(), ()]
    assert done.profile is not None
    assert done.profile.conditions.measured_by == "local"
    assert not done.profile.conditions.reused


@pytest.mark.parametrize("death", [ray.exceptions.RayActorError(), ray.exceptions.OutOfMemoryError("killed")])
def test_a_process_that_dies_of_a_model_is_replaced_and_the_next_model_is_measured(
    death: Exception, tmp_path: Path
) -> None:
    """Of one that Ray had killed for want of memory every later measurement was asked, in vain."""
    started: list[str] = []

    def start(place: str) -> Any:
        here = profiler(place)
        started.append(place)
        if len(started) <= measuring.MOST_ATTEMPTS:
            here.run.remote = lambda *_: death
        return here

    target, desk = Target(name="local", start=start), Desk()
    for _ in range(2):
        target.add(request_for(tmp_path, TargetSpec(runtime="pytorch")))
    assert measured_by(target, desk).profile is None
    assert measured_by(target, desk).profile is not None
    assert len(started) == measuring.MOST_ATTEMPTS + 1
