"""The way of one search: run, look, export, predict, on a real Ray."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests.command_line import vitsearch
from tests.e2e.harness import front, query, run, write_job
from vitsearch import load

pytestmark = pytest.mark.xdist_group("ray")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    out = folder / "out"
    job = write_job(folder, train={"epochs": 3}, final={"retrain": "knee", "epochs": 6})
    found = run("run", job, "--out", out, "--trials", "7", "--seed", "5")
    assert found.returncode == 0, found.stderr
    assert "7/7 trials" in found.stderr
    assert "Pareto front of tiny" in found.stdout
    return out


def test_every_trial_is_stored_told_once_and_reported(finished: Path) -> None:
    states = query(finished, "SELECT state, kind FROM trials")
    assert {state for state, _ in states} == {"told"}
    assert sum(kind == "evaluate" for _, kind in states) == 7
    with (finished / "trials.csv").open(encoding="utf-8") as lines:
        assert len(list(csv.DictReader(lines))) == len(states)
    assert (finished / "pareto.png").stat().st_size > 10_000
    assert "Plotly" in (finished / "pareto.html").read_text(encoding="utf-8")


def test_the_front_is_what_the_contract_says(finished: Path) -> None:
    found = front(finished)
    assert {"front", "hypervolume", "knee"} <= set(found)
    members = found["front"]
    assert members
    assert all({"trial", "accuracy", "eer_pct", "candidate"} <= set(member) for member in members)
    assert found["hypervolume"] > 0
    assert found["knee"] in {member["trial"] for member in members}
    for one in members:
        assert not any(o["accuracy"] > one["accuracy"] and o["eer_pct"] < one["eer_pct"] for o in members)
        assert one["profiles"]["local"]["conditions"]["contended"] is False


def test_the_test_split_is_read_for_the_knee_alone(finished: Path) -> None:
    found = front(finished)
    tested = [member["trial"] for member in found["front"] if member["test_accuracy"] is not None]
    assert tested == [found["knee"]]
    assert [trial for (trial,) in query(finished, "SELECT trial FROM finals")] == tested


def test_the_seed_and_trials_of_the_command_line_win(finished: Path) -> None:
    job = json.loads(query(finished, "SELECT job FROM studies")[0][0])
    assert (job["seed"], job["search"]["trials"]) == (5, 7)


def test_an_exported_model_classifies_as_well_as_its_metrics_say(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    found = run("export", finished, "--select", "best-accuracy", "--out", out, "--json")
    assert found.returncode == 0, found.stderr
    bundle = load(out)
    assert {p.name for p in out.iterdir()} == {
        "model.safetensors", "candidate.json", "preprocess.json", "metrics.json", "model.onnx", "MODEL_CARD.md",
    }  # fmt: skip
    digits = load_digits()
    images = np.round(digits.images * 255 / 16).astype(np.uint8)[..., None]
    predictions = bundle.predict(images)
    accuracy = np.mean([p.label == t for p, t in zip(predictions, digits.target, strict=True)])
    assert accuracy == pytest.approx(bundle.metrics.accuracy_val, abs=0.12)

    Image.fromarray(images[0, :, :, 0]).save(tmp_path / "zero.png")
    one = json.loads(vitsearch("predict", out, tmp_path / "zero.png", "--json").stdout)[0]
    assert one["label"] == predictions[0].label
    assert sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-4)


def test_pictures_are_written_where_asked(finished: Path, tmp_path: Path) -> None:
    found = vitsearch(
        "pareto", finished, "--png", tmp_path / "f.png", "--html", tmp_path / "f.html", "--landmarks"
    )
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "f.html").stat().st_size > 1_000_000  # plotly.js is inside


@pytest.mark.slow
def test_a_finished_study_takes_a_larger_budget(finished: Path) -> None:
    before = query(finished, "SELECT trial, outcome FROM results ORDER BY trial")
    found = run("resume", finished, "--trials", "9")
    assert found.returncode == 0, found.stderr
    after = query(finished, "SELECT trial, outcome FROM results ORDER BY trial")
    assert len(after) == 9
    assert after[: len(before)] == before
