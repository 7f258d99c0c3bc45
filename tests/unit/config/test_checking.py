"""Files other than the job hold values of their own kind, too."""

import json
from pathlib import Path
from typing import Any

import pytest

from vitsearch.candidate import load_candidate
from vitsearch.config import JobSpec, ReferenceSpec, load_yaml, parse
from vitsearch.errors import InputError

ARCHITECTURE = {
    "image_size": 8, "in_chans": 1, "num_classes": 10, "patch_size": 2, "depth": 4, "width": 64, "heads": 4,
}  # fmt: skip


@pytest.mark.parametrize(
    ("part", "settings", "field"),
    [
        ("architecture", {"depth": "4"}, "architecture.depth"),
        ("architecture", {"width": True, "heads": 1}, "architecture.width"),
        ("architecture", {"class_token": 1}, "architecture.class_token"),
        ("tokens", {"reducer": "tome", "r": "3"}, "tokens.r"),
        ("tokens", {"reducer": "evit", "keep": True}, "tokens.keep"),
        ("sparsity", {"method": "magnitude", "heads": [4, 4, "2", 4]}, "sparsity.heads.2"),
    ],
)
def test_a_candidate_holds_numbers_as_numbers(tmp_path: Path, part: str, settings: dict[str, Any], field: str):
    written: dict[str, Any] = {"architecture": ARCHITECTURE}
    path = tmp_path / "candidate.json"
    path.write_text(json.dumps({**written, part: {**written.get(part, {}), **settings}}), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_candidate(path)
    assert caught.value.where == str(path)
    assert caught.value.field == field
    assert caught.value.remedy


def test_a_candidate_with_points_in_its_numbers_is_the_same(tmp_path: Path):
    path, other = tmp_path / "a.json", tmp_path / "b.json"
    path.write_text(json.dumps({"architecture": {**ARCHITECTURE, "depth": 4.0, "mlp_ratio": 2}}), encoding="utf-8")
    other.write_text(json.dumps({"architecture": {**ARCHITECTURE, "mlp_ratio": 2.0}}), encoding="utf-8")
    assert load_candidate(path) == load_candidate(other)


def test_a_reference_holds_numbers_as_numbers(tmp_path: Path):
    path = tmp_path / "reference.yaml"
    path.write_text("{params_m: '10', flops_g: true}", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        parse(ReferenceSpec, load_yaml(path), where=str(path))
    assert [error.field for error in (caught.value, *caught.value.more)] == ["params_m", "flops_g"]


def test_a_thousand_errors_are_counted_rather_than_listed():
    job = {"name": "a", "dataset": {"kind": "digits"}, "space": "vit_micro_8", "targets": [{"nam": 1}] * 1000}
    with pytest.raises(InputError) as caught:
        parse(JobSpec, job, where="job.yaml")
    lines = str(caught.value).splitlines()
    assert len(lines) < 60
    assert lines[-1] == "job.yaml: and 949 errors more"
