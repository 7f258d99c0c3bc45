"""Faults of a search's surroundings, and of its candidates, each for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import front, query, results_stored, run, start, wait_for, write_job
from tests.integration.test_mlflow import Server, runs_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("e2e-survive"),
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # MLflow 3.17 about its own dependencies
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def test_mlflow_gone_for_the_whole_search_gets_everything_later(tmp_path: Path) -> None:
    """In order, and once, however often it is delivered."""
    folder = tmp_path / "server"
    folder.mkdir()
    server = Server(folder)  # not started
    out = tmp_path / "out"
    tracking = {"enabled": True, "uri": server.url}
    job = write_job(tmp_path, search={"trials": 6, "sampler": "random"}, tracking=tracking)
    found = run("run", job, "--out", out, timeout_s=600)
    assert found.returncode == 0, found.stderr
    assert (
        "MLflow has not taken everything yet; `vitsearch resume` delivers the rest" in found.stdout + found.stderr
    )
    assert results_stored(out) == 6
    assert query(out, "SELECT COUNT(*) FROM outbox WHERE delivered_at IS NOT NULL") == [(0,)]
    fronts = query(out, "SELECT payload FROM outbox WHERE kind = 'front'")

    server.start()
    try:
        assert run("resume", out).returncode == 0
        assert query(out, "SELECT COUNT(*) FROM outbox WHERE delivered_at IS NULL") == [(0,)]
        order = query(out, "SELECT id FROM outbox ORDER BY delivered_at, id")
        assert order == sorted(order)
        parent, children = runs_of(server.url, "vitsearch/tiny")
        assert parent.info.status == "FINISHED"
        assert {number for (text,) in fronts for number in json.loads(text)["members"]} == children.keys()
        current = {n for n, one in children.items() if one.data.tags.get("pareto") == "current"}
        assert current == {member["trial"] for member in front(out)["front"]}
        known = {one.info.run_id for one in children.values()}

        assert run("resume", out).returncode == 0
        assert {one.info.run_id for one in runs_of(server.url, "vitsearch/tiny")[1].values()} == known
    finally:
        server.stop()


def test_candidates_that_diverge_or_hang_are_recorded_and_take_no_other_along(tmp_path: Path) -> None:
    """NaN by a learning rate beyond reason; a network whose epoch takes longer than the limit."""
    fixed = {
        "architecture.image_size": 8, "architecture.heads": 2, "architecture.patch_size": 2,
        "architecture.depth": 4, "architecture.mlp_ratio": 4.0,
    }  # fmt: skip
    dimensions = {
        "architecture.width": {"choices": [16, 24, 32, 1536]},
        "train.lr": {"choices": [0.001, 0.002, 1e30]},
    }
    job = write_job(
        tmp_path, space={"fixed": fixed, "dimensions": dimensions},
        search={"trials": 12, "sampler": "random", "trial_timeout_s": 20},
        train={"epochs": 1, "warmup_epochs": 0.0, "early_stop": False, "batch_size": 128},
    )  # fmt: skip
    out = tmp_path / "out"
    found = run("run", job, "--out", out, timeout_s=600)
    assert found.returncode == 0, found.stderr
    rows = query(out, "SELECT t.candidate, r.outcome, t.state FROM trials t JOIN results r ON t.number = r.trial")
    fates: Counter[str] = Counter()
    for text, outcome, state in rows:
        candidate, found_out = json.loads(text), json.loads(outcome)
        assert state == "told"
        fate = found_out.get("failure", "done")
        fates[fate] += 1
        if candidate["architecture"]["width"] == 1536:
            assert fate in {"timeout", "nan_loss", "out_of_memory"}
        elif candidate["training"].get("lr") == 1e30:
            assert fate == "nan_loss", found_out
        else:
            assert fate == "done", found_out
    assert sum(fates.values()) == 12
    assert {"done", "nan_loss", "timeout"} <= fates.keys(), fates
    for member in front(out)["front"]:
        assert member["candidate"]["architecture"]["width"] != 1536
    assert "train: nan_loss: " in (out / "trials.csv").read_text(encoding="utf-8")


def test_a_poisoned_image_is_named_or_left_out(tmp_path: Path) -> None:
    from PIL import Image

    images = tmp_path / "images"
    for number in range(60):
        folder = images / ("dark" if number % 2 else "light")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 40 + number if number % 2 else 200).save(folder / f"{number}.png")
    (images / "dark" / "poison.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\xff" * 500)
    dataset: dict[str, Any] = {"kind": "imagefolder", "path": str(images), "in_chans": 1}
    job = write_job(tmp_path, dataset=dataset, search={"trials": 2})
    refused = run("run", job, "--out", tmp_path / "out")
    assert refused.returncode == 2, refused.stderr
    assert "poison.png" in refused.stderr
    assert not (tmp_path / "out").exists()

    job = write_job(tmp_path, dataset={**dataset, "on_broken_image": "skip"}, search={"trials": 2})
    found = run("run", job, "--out", tmp_path / "out")
    assert found.returncode == 0, found.stderr
    assert results_stored(tmp_path / "out") == 2


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting needs Linux and root")
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this root may not mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("scheme", ["", "local://"], ids=["folder", "store"])
def test_a_store_that_becomes_read_only(scheme: str, disk: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = write_job(
        tmp_path, search={"trials": 6, "max_workers": 1}, train={"epochs": 3},
        storage={"artifacts": f"{scheme}{disk}/store"},
    )  # fmt: skip
    process = start("run", job, "--out", out)
    wait_for(lambda: results_stored(out) >= 2, process)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 1, output
    assert "Traceback" not in output
    assert "Read-only file system" in output, output
    assert f"vitsearch resume {out}" in output
    before = dict(query(out, "SELECT trial, outcome FROM results"))

    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    found = run("resume", out)
    assert found.returncode == 0, found.stderr
    after = dict(query(out, "SELECT trial, outcome FROM results"))
    assert {trial: after[trial] for trial in before} == before
    assert len(after) == 6
    assert {json.loads(outcome)["kind"] for outcome in after.values()} == {"result"}, "no candidate was blamed"
