"""A search on CIFAR-10 photographs, where a development checkout has them beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.e2e.harness import front, query, run, write_job

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("e2e-cifar"), pytest.mark.timeout(1500)]


def test_a_search_on_cifar(repository: Path, tmp_path: Path) -> None:
    images = repository.parent / "shared" / "data" / "cifar10_5k.npz"
    if not images.exists():
        pytest.skip("needs cifar10_5k.npz in ../shared/data")
    out = tmp_path / "out"
    job = write_job(
        tmp_path,
        name="cifar",
        dataset={"kind": "npz", "path": str(images), "max_images": 1000},
        space="vit_tiny_32",
        search={"trials": 24},
        train={"recipe": "plain", "epochs": 3, "batch_size": 32, "lr": 2e-3, "pos_embed_std": 0.5},
        final={"retrain": "knee", "epochs": 3},
    )
    found = run("run", job, "--out", out, timeout_s=1400)
    assert found.returncode == 0, found.stderr
    assert "24/24 trials" in found.stderr

    data = query(out, "SELECT data FROM studies")[0][0]
    assert '"in_chans":3' in data.replace(" ", "")
    shown = front(out)
    assert len(shown["front"]) >= 5
    with np.load(images) as arrays:
        tested = len(arrays["y_test"])
    knee = next(member for member in shown["front"] if member["trial"] == shown["knee"])
    assert round(knee["test_accuracy"] * tested, 6).is_integer(), "the official test images, all of them"
    best = max(member["accuracy"] for member in shown["front"])
    assert best > 0.2, "twice chance, after three epochs of a thousand images"
    assert all(member["candidate"]["architecture"]["image_size"] == 32 for member in shown["front"])
