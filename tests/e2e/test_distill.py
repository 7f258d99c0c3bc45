"""A search whose trials listen to a teacher, which is asked once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from tests.e2e.harness import query, run, write_job

pytestmark = pytest.mark.xdist_group("e2e-distill")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a dense network that tells digits apart tolerably."""
    folder = tmp_path_factory.mktemp("teacher")
    fixed = {"architecture.image_size": 8, "architecture.patch_size": 4, "architecture.depth": 2,
             "architecture.width": 64}  # fmt: skip
    job = write_job(
        folder,
        dataset={"max_images": 600},
        space={"fixed": fixed, "dimensions": {"architecture.heads": {"choices": [2, 4]}}},
        search={"trials": 2, "sampler": "random"},
        train={"epochs": 10},
    )
    assert run("run", job, "--out", folder / "out").returncode == 0
    found = run("export", folder / "out", "--select", "best-accuracy", "--out", folder / "bundle")
    assert found.returncode == 0, found.stderr
    return folder / "bundle"


@pytest.mark.slow
def test_the_teacher_is_asked_once_per_study(teacher: Path, tmp_path: Path) -> None:
    distill = {"method": "soft", "teacher": {"bundle": str(teacher)}, "alpha": 0.7, "temperature": 2.0}
    job = write_job(
        tmp_path, search={"trials": 3}, train={"epochs": 2, "distill": distill}, dataset={"max_images": 600},
        final={"retrain": "knee", "epochs": 3},
    )  # fmt: skip
    out = tmp_path / "out"
    found = run("run", job, "--out", out)

    assert found.returncode == 0, found.stderr
    assert "the teacher has answered epoch 2/2" in found.stderr
    (answers,) = (out / "artifacts" / "teacher").glob("*.npz")
    with np.load(answers) as stored:
        epochs, images, kept = stored["classes_ENT"].shape
        assert (epochs, kept) == (2, 10)
        assert np.exp(stored["log_probs_ENT"].astype(float)).sum(axis=2) == pytest.approx(
            np.ones((2, images)), abs=0.01
        )
    outcomes = [json.loads(text) for (text,) in query(out, "SELECT outcome FROM results")]
    assert {outcome["kind"] for outcome in outcomes} == {"result"}

    written = answers.stat().st_mtime_ns
    found = run("resume", out, "--trials", "4")
    assert found.returncode == 0, found.stderr
    assert "the teacher has answered" not in found.stderr
    assert answers.stat().st_mtime_ns == written


@pytest.mark.slow
def test_trials_learn_from_several_summands_in_the_workers(teacher: Path, tmp_path: Path) -> None:
    """With the cache of answers beside what the teacher computes, and with no answers at all."""
    several = {"labels": 0.5, "soft": 0.5, "tokens": 0.1, "manifold": 0.1, "minivit": 0.1}
    for number, terms in enumerate((several, {"labels": 1.0, "manifold": 0.5, "smkd": 0.2})):
        distill = {"method": "combined", "teacher": {"bundle": str(teacher)}, "terms": terms}
        train = {"epochs": 2, "distill": distill}
        job = write_job(tmp_path, search={"trials": 2}, train=train, dataset={"max_images": 600})
        out = tmp_path / f"out{number}"
        found = run("run", job, "--out", out)
        assert found.returncode == 0, found.stderr
        assert ("the teacher has answered epoch 2/2" in found.stderr) == ("soft" in terms)
        outcomes = [json.loads(text) for (text,) in query(out, "SELECT outcome FROM results")]
        assert {outcome["kind"] for outcome in outcomes} == {"result"}


@pytest.mark.slow
def test_how_to_teach_is_searched(teacher: Path, tmp_path: Path) -> None:
    """Methods, learning rates and starts as axes; a model is exported with its recipe."""
    space = {
        "fixed": {"architecture.image_size": 8, "architecture.patch_size": 4, "architecture.depth": 2,
                  "architecture.width": 32, "architecture.heads": 2, "tokens.reducer": "tome"},
        "dimensions": {
            "tokens.r": {"choices": [0, 1]},
            "train.init": {"choices": ["random", "pretrained"]},
            "train.lr": {"choices": [0.001, 0.003]},
            "train.distill.method": {"choices": ["none", "soft", "hard"]},
            "train.distill.inner": {"choices": ["none", "tokens"]},
        },
    }  # fmt: skip
    train = {"epochs": 2, "distill": {"teacher": {"bundle": str(teacher)}}, "pretrained": {"bundle": str(teacher)}}
    job = write_job(
        tmp_path, search={"trials": 8, "sampler": "random"}, dataset={"max_images": 600}, space=space, train=train,
        final={"retrain": "knee", "epochs": 2},
    )  # fmt: skip
    out = tmp_path / "out"
    found = run("run", job, "--out", out)

    assert found.returncode == 0, found.stderr
    assert "the teacher has answered epoch 2/2" in found.stderr
    outcomes = [json.loads(text) for (text,) in query(out, "SELECT outcome FROM results")]
    assert {outcome["kind"] for outcome in outcomes} == {"result"}, outcomes
    candidates = [json.loads(text) for (text,) in query(out, "SELECT candidate FROM trials WHERE kind='evaluate'")]
    assert len({candidate["training"]["distill"]["method"] for candidate in candidates}) > 1
    assert "method=" in (out / "trials.csv").read_text()
    bundle = run("export", out, "--select", "best-accuracy", "--out", tmp_path / "bundle")
    assert bundle.returncode == 0, bundle.stderr
    own = json.loads((tmp_path / "bundle" / "candidate.json").read_text())["training"]
    metrics = json.loads((tmp_path / "bundle" / "metrics.json").read_text())
    assert metrics["train"]["lr"] == own["lr"]
    assert metrics["train"]["distill"]["method"] == own["distill"]["method"]


@pytest.mark.slow
def test_two_teachers_are_asked_once_each(teacher: Path, tmp_path: Path) -> None:
    both = {"method": "co_advise", "teacher": {"bundle": str(teacher)}, "second_teacher": {"timm": "test_resnet",
            "checkpoint": str(checkpoint_of("test_resnet", tmp_path))}}  # fmt: skip
    fixed = {
        "architecture.image_size": 8, "architecture.patch_size": 4, "architecture.depth": 2,
        "architecture.width": 32, "architecture.distilled": True, "architecture.distillation_tokens": 2,
    }  # fmt: skip
    job = write_job(
        tmp_path, search={"trials": 2, "sampler": "random"}, dataset={"max_images": 600},
        space={"fixed": fixed, "dimensions": {"architecture.heads": {"choices": [2, 4]}}},
        train={"epochs": 2, "distill": both},
    )  # fmt: skip
    out = tmp_path / "out"
    found = run("run", job, "--out", out)

    assert found.returncode == 0, found.stderr
    for name in ("the teacher", "the second teacher"):
        assert f"{name} has answered epoch 2/2" in found.stderr
    files = sorted((out / "artifacts" / "teacher").glob("*.npz"))
    assert len(files) == 2
    one, other = (np.load(file)["log_probs_ENT"] for file in files)
    assert one.shape == other.shape
    assert not np.array_equal(one, other)
    outcomes = [json.loads(text) for (text,) in query(out, "SELECT outcome FROM results")]
    assert {outcome["kind"] for outcome in outcomes} == {"result"}, outcomes
    bundle = run("export", out, "--select", "best-accuracy", "--out", tmp_path / "bundle")
    assert bundle.returncode == 0, bundle.stderr


def checkpoint_of(name: str, folder: Path) -> Path:
    """Random weights of a timm network for ten classes."""
    torch.manual_seed(0)
    file = folder / f"{name}.safetensors"
    save_file(timm.create_model(name, num_classes=10).state_dict(), file)
    return file


@pytest.mark.slow
def test_trials_start_from_trained_weights(teacher: Path, tmp_path: Path) -> None:
    job = write_job(
        tmp_path, search={"trials": 2, "max_workers": 1}, dataset={"max_images": 600},
        train={"epochs": 1, "init": "pretrained", "pretrained": {"bundle": str(teacher)}},
    )  # fmt: skip
    found = run("run", job, "--out", tmp_path / "out")
    assert found.returncode == 0, found.stderr
    found = run("run", write_job(tmp_path, train={"init": "pretrained"}), "--out", tmp_path / "none")
    assert found.returncode == 2
    assert "init: pretrained needs weights" in found.stderr


@pytest.mark.slow  # unit tests of the command line have each refusal
def test_a_teacher_that_does_not_fit_is_told_before_anything_is_made(teacher: Path, tmp_path: Path) -> None:
    for distill, rule in (
        ({"method": "deit", "teacher": {"bundle": str(teacher)}}, "deit needs a distillation token"),
        ({"method": "co_advise", "teacher": {"bundle": str(teacher)}}, "add second_teacher"),
        (
            {
                "method": "co_advise",
                "teacher": {"bundle": str(teacher)},
                "second_teacher": {"bundle": str(teacher)},
            },
            "co_advise needs two distillation tokens",
        ),
        ({"method": "hard", "teacher": {"bundle": "nowhere"}}, "must be the folder of a bundle"),
        ({"method": "hard", "teacher": {"timm": "vit_tinny"}}, "must be a network that timm knows"),
        ({"method": "hard"}, "needs a teacher"),
        ({"method": "heard"}, "did you mean 'hard'"),
        ({"method": "combined", "teacher": {"bundle": str(teacher)}}, "needs terms that listen to a teacher"),
    ):
        job = write_job(tmp_path, train={"distill": distill})
        found = run("run", job, "--out", tmp_path / "out")
        assert found.returncode == 2, found.stderr
        assert rule in found.stderr
        assert "Traceback" not in found.stderr
        assert not (tmp_path / "out").exists()
