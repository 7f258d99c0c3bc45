"""A trainer without Ray is an ordinary class."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from tests.unit.train.factory import image_data
from vitsearch.config import DistillSpec, NetworkSpec, TrainSpec
from vitsearch.messages import Outcome
from vitsearch.testing.executors import small_trial
from vitsearch.train.batches import Batch
from workers import turns
from workers.trainer import Trainer
from workers.turns import machine_to_itself


def test_what_two_teachers_have_said_stays_apart_and_in_order() -> None:
    data = image_data()
    meta = {name: getattr(data, name) for name in vars(data) if name not in {"images_NHWC", "labels_N"}}
    images = len(data.train)
    said = [
        part
        for favourite in (0, 2)
        for part in (np.full((1, images, 1), favourite, np.uint16), np.full((1, images, 1), -0.1, np.float16))
    ]
    trainer = Trainer(data.images_NHWC, data.labels_N, meta, torch.get_num_threads(), "cpu", *said)
    one, other = NetworkSpec(timm="any"), NetworkSpec(timm="other")
    both = DistillSpec(method="co_advise", teacher=one, second_teacher=other)
    batch = Batch(images_BCHW=torch.zeros(4, 1, 8, 8), targets=torch.zeros(4), epoch=0, step=0, start=0)
    found = [answers(batch).argmax(dim=1).tolist() for answers in trainer._answers(both)]
    assert found == [[0] * 4, [2] * 4]
    assert trainer._answers(DistillSpec()) == ()


def test_a_network_that_this_node_lacks_is_not_the_candidates_fault(tmp_path: Path) -> None:
    data = image_data()
    meta = {name: getattr(data, name) for name in vars(data) if name not in {"images_NHWC", "labels_N"}}
    trainer = Trainer(data.images_NHWC, data.labels_N, meta, torch.get_num_threads(), "cpu")
    recipe = TrainSpec(distill=DistillSpec(method="hard", teacher=NetworkSpec(bundle=tmp_path / "missing")))
    request = small_trial(tmp_path, data.fingerprint).model_copy(update={"train": recipe})
    outcome = TypeAdapter(Outcome).validate_json(trainer.run(request.model_dump_json()))
    assert outcome.kind == "failure"
    assert outcome.retryable
    assert "missing" in outcome.message


def test_nothing_of_it_runs_beside_a_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its start and the comparison of number formats disturbed figures that said otherwise, and were kept."""
    monkeypatch.setattr(turns, "FOLDER", tmp_path)
    monkeypatch.setattr(turns, "REST_TIMEOUT_S", 0.0)
    alone: list[bool] = []

    def look(*_: object) -> None:
        with machine_to_itself() as is_alone:
            alone.append(is_alone)

    def compare(*_: object) -> str:
        look()
        return "fp32"

    data = image_data()
    meta = {name: getattr(data, name) for name in vars(data) if name not in {"images_NHWC", "labels_N"}}
    monkeypatch.setattr("vitsearch.train.tensors.TensorData.__init__", look)
    monkeypatch.setattr("vitsearch.train.autocast.fastest_autocast", compare)
    trainer = Trainer(data.images_NHWC, data.labels_N, meta, torch.get_num_threads(), "cpu")
    trainer._data = SimpleNamespace(device="cpu")  # type: ignore[assignment]
    shape = small_trial(tmp_path, data.fingerprint).candidate.architecture
    assert trainer.fastest_autocast(shape.model_dump_json(), 8) == "fp32"
    assert alone == [False, False]
    look()
    assert alone[-1], "it rests"
