"""Measured objectives and folders of images, on a real Ray."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests.e2e.harness import front, run, write_job

pytestmark = pytest.mark.xdist_group("e2e-objectives")


@pytest.mark.slow
def test_three_objectives_with_latency_on_onnx_runtime(tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = write_job(
        tmp_path,
        objectives=["accuracy", "latency", "size"],
        targets=[{"name": "local", "runtime": "onnxruntime", "repeats": 10}],
        constraints=[{"metric": "params", "max": 200000}],
        search={"trials": 4, "sampler": "tpe"},
    )
    found = run("run", job, "--out", out)
    assert found.returncode == 0, found.stderr
    for member in front(out)["front"]:
        assert member["latency_ms_p50"] > 0
        assert member["num_params"] <= 200_000
        assert member["profiles"]["local"]["conditions"]["runtime"].startswith("onnxruntime")


@pytest.mark.slow
def test_a_folder_of_images_needs_no_job(tmp_path: Path) -> None:
    digits = load_digits()
    for label in (0, 1, 2):
        folder = tmp_path / "my images" / f"digit {label}"
        folder.mkdir(parents=True)
        for i in np.flatnonzero(digits.target == label)[:40]:
            pixels = np.round(digits.images[i] * 255 / 16).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    (tmp_path / "my images" / "digit 0" / "broken.png").write_bytes(b"not a picture")
    out = tmp_path / "out"

    found = run("run", tmp_path / "my images", "--out", out, "--trials", "2", "--workers", "2")

    assert found.returncode == 0, found.stderr
    assert (out / "job.yaml").exists()
    assert "note: 1 image cannot be decoded and is left out: digit 0/broken.png\n" in found.stderr
    assert front(out)["front"]
    assert front(out)["skipped_images"] == ["digit 0/broken.png"]
    assert run("validate", out / "job.yaml").returncode == 0
