from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.unit.report import factory
from vitsearch.candidate import LEARNING_PRUNERS, PRUNERS
from vitsearch.cli import job_checks, run, session
from vitsearch.cli.job_checks import check_recipe
from vitsearch.cli.run import skipped_note
from vitsearch.config import JobSpec, SpaceSpec, TrainSpec
from vitsearch.errors import InputError
from vitsearch.space import SearchSpace


def test_a_note_names_the_first_broken_images_and_counts_the_others():
    names = [f"cats/{i}.png" for i in range(12)]
    assert skipped_note(names[:1]) == "note: 1 image cannot be decoded and is left out: cats/0.png"
    assert skipped_note(names[:2]) == "note: 2 images cannot be decoded and are left out: cats/0.png, cats/1.png"
    assert skipped_note(names).endswith(
        "12 images cannot be decoded and are left out: " + ", ".join(names[:5]) + " and 7 more"
    )


def drive(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    interrupted: bool = False,
    json_output: bool = False,
    **trials: int,
) -> int:
    """Exit code of a search that ended with these trials."""
    report = factory.report(folder, None, **trials)
    ended = session.Ended(
        report=report, reason="trial budget used", interrupted=interrupted, problems=["one problem"]
    )
    monkeypatch.setattr(session, "search", lambda *_: ended)
    data: Any = SimpleNamespace(skipped=("cats/1.png",))
    try:
        run.drive(cast("Any", None), folder, data, json_output=json_output)
    except SystemExit as left:
        return int(str(left.code))
    return 0


@pytest.mark.parametrize("json_output", [False, True])
def test_a_search_without_a_success_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], json_output: bool
):
    assert drive(tmp_path, monkeypatch, json_output=json_output, trials=4, fail_every=1) == 1
    assert (
        "error: no trial succeeded (0 trials done, 4 failed, 0 on the front); see trials.csv for the reasons"
        in capsys.readouterr().err
    )


def test_a_search_with_a_front_ends_with_0_and_tells_its_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert drive(tmp_path, monkeypatch, trials=4) == 0
    told = capsys.readouterr()
    assert "note: 1 image cannot be decoded and is left out: cats/1.png\nnote: one problem\n" in told.err
    assert "Pareto front of digits" in told.out
    assert "ended: trial budget used" in told.out


def test_an_interrupted_search_ends_with_130_even_without_a_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert drive(tmp_path, monkeypatch, interrupted=True, trials=4, fail_every=1) == 130


@pytest.mark.parametrize(
    ("fixed", "epochs"),
    [
        ({"tokens.reducer": "dynamicvit"}, "finetune_epochs"),
        ({"tokens.reducer": "topk", "tokens.k": 3, "tokens.score": "learned"}, "finetune_epochs"),
        ({"precision.weight_bits": 4, "precision.training": "lsq"}, "qat_epochs"),
    ],
    ids=str,
)
def test_what_learns_needs_epochs_to_learn_in(fixed: dict[str, Any], epochs: str):
    space = {
        "fixed": {"architecture.image_size": 8, "architecture.depth": 2, "architecture.heads": 1,
                  "architecture.patch_size": 2, **fixed},
        "dimensions": {"architecture.width": {"choices": [16, 32]}},
    }  # fmt: skip
    job: dict[str, Any] = {"name": "a", "dataset": {"kind": "digits"}, "space": space}
    job_checks.check_space(JobSpec.model_validate(job), Path("job.yaml"))
    with pytest.raises(
        InputError, match=f"must be 1 or more, because .* can be {list(fixed.values())[-1]}"
    ) as caught:
        job_checks.check_space(JobSpec.model_validate({**job, "train": {epochs: 0}}), Path("job.yaml"))
    assert caught.value.field == f"train.{epochs}"


@pytest.mark.parametrize(
    ("precision", "target", "refused"),
    [
        ({"precision.weight_bits": 3, "precision.activation_bits": 8}, {}, "precision.weight_bits can be 3"),
        ({"precision.weight_bits": 8}, {}, "precision.activation_bits can be 32"),
        ({"precision.weight_bits": 8, "precision.activation_bits": 8}, {}, ""),
        ({}, {"also": ["onnxruntime"]}, ""),
    ],
    ids=str,
)
def test_a_runtime_of_integers_needs_candidates_of_its_bits(
    precision: dict[str, Any], target: dict[str, Any], refused: str
):
    space = {
        "fixed": {"architecture.image_size": 8, "architecture.depth": 2, "architecture.heads": 1,
                  "architecture.patch_size": 2, **precision},
        "dimensions": {"architecture.width": {"choices": [16, 32]}},
    }  # fmt: skip
    targets = [{"runtime": "onnxruntime_int8_dynamic", **target}]
    job = JobSpec.model_validate({"name": "a", "dataset": {"kind": "digits"}, "space": space, "targets": targets})
    if not refused:
        job_checks.check_space(job, Path("job.yaml"))
        return
    with pytest.raises(InputError, match=f"executes 8 bits only, but {refused}") as caught:
        job_checks.check_space(job, Path("job.yaml"))
    assert caught.value.field == "targets.0.runtime"
    assert "in the space, or add a float runtime to also" in caught.value.remedy


@pytest.mark.parametrize("method", sorted(LEARNING_PRUNERS))
@pytest.mark.parametrize("epochs", [0, 1])
def test_a_ranking_that_learns_needs_epochs(method: str, epochs: int):
    space = sparse_space(method={"choices": ["magnitude", method]}, mlp_ratio={"choices": [0.0, 0.5]})
    with pytest.raises(InputError) as caught:
        check_recipe(space, TrainSpec(finetune_epochs=epochs), Path("job.yaml"))
    assert str(caught.value) == (
        f"job.yaml: train.finetune_epochs: must be 2 or more, because sparsity.method can be {method}, which "
        f"trains in these epochs, but got {epochs}; write 2 or more, or leave {method} out of the space"
    )
    assert caught.value.exit_code == 2
    check_recipe(space, TrainSpec(finetune_epochs=2), Path("job.yaml"))


@pytest.mark.parametrize(
    ("tokens", "setting", "refused"),
    [
        ({"tokens.reducer": "tome", "tokens.r": 2}, "start", True),  # after every block, from the first
        ({"tokens.reducer": "tome", "tokens.r": 2, "tokens.blocks": "1,3"}, "start", True),
        ({"tokens.reducer": "tome", "tokens.r": 2, "tokens.blocks": "2,3"}, "start", False),
        ({"tokens.reducer": "tome", "tokens.r": 2}, "finetune", False),
        ({"tokens.reducer": "evit", "tokens.keep": 0.5}, "start", False),  # after 2, 3 and 4 of four
        ({}, "start", False),
    ],
    ids=str,
)
def test_patches_to_compare_with_a_teacher_must_be_there(tokens: dict[str, Any], setting: str, refused: bool):
    space = {
        "fixed": {"architecture.image_size": 8, "architecture.depth": 4, "architecture.heads": 1,
                  "architecture.patch_size": 2, **tokens},
        "dimensions": {"architecture.width": {"choices": [16, 32]}},
    }  # fmt: skip
    for distill in ({"inner": "tokens"}, {"method": "combined", "terms": {"soft": 1.0, "tokens": 1.0}}):
        train = {"tokens": setting, "finetune_epochs": 1, "distill": {**distill, "teacher": {"timm": "resnet18"}}}
        job = JobSpec.model_validate({"name": "a", "dataset": {"kind": "digits"}, "space": space, "train": train})
        if not refused:
            job_checks.check_space(job, Path("job.yaml"))
            continue
        with pytest.raises(InputError) as caught:
            job_checks.check_space(job, Path("job.yaml"))
        assert str(caught.value) == (
            "job.yaml: train.tokens: tokens compare patches after a block that keeps all of them, but tome can "
            "remove some in block 1 from the start of training, but got 'start'; name tokens.blocks from 2 on, or "
            "write train.tokens: finetune"
        )


TEACHER = {"teacher": {"timm": "resnet18"}}


def taught_job(distill: dict[str, Any], space: dict[str, Any], **fixed: Any) -> JobSpec:
    dense = {"architecture.image_size": 8, "architecture.depth": 4, "architecture.heads": 1,
             "architecture.patch_size": 2, "architecture.width": 16}  # fmt: skip
    spec = {"fixed": {**dense, **fixed}, "dimensions": space}
    train = {"distill": distill}
    return JobSpec.model_validate({"name": "a", "dataset": {"kind": "digits"}, "space": spec, "train": train})


METHODS = {"train.distill.method": {"choices": ["none", "soft", "hard"]}}


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (taught_job(TEACHER, {"architecture.mlp_ratio": {"choices": [1, 2]}}), "distill.teacher: nobody listens"),
        (taught_job({}, METHODS), "train.distill.method: method soft needs a teacher"),
        (
            taught_job(TEACHER, {"train.distill.method": {"choices": ["none", "deit"]}}),
            "train.distill.method: deit needs a distillation token",
        ),
        (
            taught_job(TEACHER, {**METHODS, "train.mixup": {"low": 0.0, "high": 0.5}}),
            "about the same images for all trials, but train.mixup varies",
        ),
        (
            taught_job({}, {"train.init": {"choices": ["random", "pretrained"]}}),
            "train.init: init: pretrained needs weights",
        ),
        (
            taught_job(
                TEACHER, {"train.distill.inner": {"choices": ["none", "tokens"]}}, **{"train.tokens": "start",
                "tokens.reducer": "tome", "tokens.r": 2},
            ),
            "train.tokens: tokens compare patches after a block that keeps all of them",
        ),
    ],
    ids=range(6),
)  # fmt: skip
def test_how_candidates_are_taught_must_go_with_the_job(job: JobSpec, message: str) -> None:
    with pytest.raises(InputError) as caught:
        job_checks.check_space(job, Path("job.yaml"))
    assert message in str(caught.value)
    assert str(caught.value).startswith("job.yaml: ")


@pytest.mark.parametrize("place", ["job", "space"])
def test_a_learning_rate_does_not_rise(place: str) -> None:
    lr = {"train.lr": {"low": 1.0e-6, "high": 1.0e-3, "log": True}}
    job = taught_job({}, lr if place == "space" else {"architecture.mlp_ratio": {"choices": [1, 2]}})
    if place == "job":
        job = job.model_copy(update={"train": TrainSpec(lr=1e-6)})
    with pytest.raises(InputError) as caught:
        job_checks.check_space(job, Path("job.yaml"))
    assert str(caught.value) == (
        "job.yaml: train.min_lr: must be at most lr, which can be 1e-06, but got 1e-05; write a smaller one"
    )


def test_ways_to_teach_can_be_searched() -> None:
    distilled = {"architecture.distilled": {"choices": [False, True]}}
    deit = {"train.distill.method": {"choices": ["deit"], "when": {"architecture.distilled": True}}}
    job_checks.check_space(taught_job(TEACHER, METHODS), Path("job.yaml"))
    job_checks.check_space(taught_job(TEACHER, {**distilled, **deit}), Path("job.yaml"))
    mixup = {"train.mixup": {"low": 0.0, "high": 0.5}}
    job_checks.check_space(taught_job({**TEACHER, "cache": False}, {**METHODS, **mixup}), Path("job.yaml"))
    job_checks.check_space(taught_job(TEACHER, METHODS, **{"train.mixup": 0.5}), Path("job.yaml"))


def test_other_rankings_need_none():
    space = sparse_space(method={"choices": sorted({*PRUNERS} - LEARNING_PRUNERS)})
    check_recipe(space, TrainSpec(finetune_epochs=0), Path("job.yaml"))


def sparse_space(**dimensions: dict[str, Any]) -> SearchSpace:
    spec = SpaceSpec.model_validate(
        {
            "name": "s",
            "fixed": {
                "architecture.image_size": 8, "architecture.patch_size": 2, "architecture.depth": 2,
                "architecture.width": 16, "architecture.heads": 2,
            },
            "dimensions": {f"sparsity.{name}": value for name, value in dimensions.items()},
        }
    )  # fmt: skip
    return SearchSpace(spec, in_chans=1, num_classes=10)
