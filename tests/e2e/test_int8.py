"""A search for a target that executes 8-bit integers, through Ray, to a file that can be shipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vitsearch
from tests.e2e.harness import front, run, write_job
from vitsearch.config import DatasetSpec
from vitsearch.train.data import load_dataset

pytestmark = pytest.mark.xdist_group("e2e-int8")

INT8 = ("onnxruntime_int8_dynamic", "onnxruntime_int8_qdq")
TARGET = {"name": "local", "runtime": INT8[0], "also": [INT8[1]], "warmup": 1, "repeats": 5}


def space(bits: int) -> dict[str, Any]:
    return {
        "fixed": {
            "architecture.image_size": 8, "architecture.patch_size": 2, "architecture.depth": 3,
            "architecture.heads": 4, "precision.weight_bits": bits, "precision.activation_bits": 8,
        },
        "dimensions": {"architecture.width": {"choices": [32, 48, 64]}},
    }  # fmt: skip


def test_three_bits_are_refused_before_anything_starts(tmp_path: Path) -> None:
    job = write_job(tmp_path, space=space(3), targets=[TARGET])
    for arguments in (("validate", job), ("run", job, "--out", tmp_path / "out")):
        found = run(*arguments)
        assert found.returncode == 2
        assert "executes 8 bits only, but precision.weight_bits can be 3" in found.stderr
        assert "onnxruntime_int8_dynamic" in found.stderr
        assert "fix precision.weight_bits: 8 in the space" in found.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_figures_are_those_of_the_files_and_a_file_can_be_taken_along(tmp_path: Path) -> None:
    job = write_job(
        tmp_path, dataset={"max_images": 900}, space=space(8), objectives=["accuracy", "latency"],
        search={"trials": 3}, train={"epochs": 8, "batch_size": 32, "lr": 3e-3}, targets=[TARGET],
    )  # fmt: skip
    out = tmp_path / "out"
    found = run("run", job, "--out", out)
    assert found.returncode == 0, found.stderr
    members = front(out)["front"]
    for member in members:
        profile = member["profiles"]["local"]
        measured = [profile, *profile["others"]]
        assert {one["conditions"]["runtime"].partition(" ")[0] for one in measured} == set(INT8)
        assert {one["conditions"]["dtype"] for one in measured} == {"int8"}
        assert {one["conditions"]["inputs"] for one in measured} == {"validation images"}
        assert member["latency_ms_p50"] == min(one["latency_ms_p50"] for one in measured)
        for one in measured:
            assert one["accuracy"] == pytest.approx(member["accuracy"], abs=0.03)
    assert max(member["accuracy"] for member in members) > 0.5

    exported = run("export", out, "--select", "best-accuracy", "--int8", "qdq", "--out", tmp_path / "b", "--json")
    assert exported.returncode == 0, exported.stderr
    known = json.loads(exported.stdout)["metrics"]["int8"]
    assert known["kind"] == "qdq"
    assert known["agreement"] > 0.95
    best = max(members, key=lambda member: member["accuracy"])
    measured = [best["profiles"]["local"], *best["profiles"]["local"]["others"]]
    [qdq] = [one for one in measured if "qdq" in one["conditions"]["runtime"]]
    assert known["accuracy_val"] == pytest.approx(qdq["accuracy"], abs=0.01)

    bundle = vitsearch.load(tmp_path / "b")
    data = load_dataset(DatasetSpec(kind="digits", max_images=900), image_size=8, seed=3)
    pixels = data.images_NHWC[data.val].transpose(0, 3, 1, 2) / np.float32(255)
    mean, std = (np.float32(values).reshape(-1, 1, 1) for values in (data.mean, data.std))
    assert bundle.onnx_int8 is not None
    labels = bundle.onnx_int8(((pixels - mean) / std).astype(np.float32)).argmax(1)
    assert (labels == data.labels_N[data.val]).mean() == pytest.approx(known["accuracy_val"], abs=0.01)
