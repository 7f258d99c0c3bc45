"""The reference in docs/job.md names every field of a job with its true default."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from vitsearch.config import RECIPES, JobSpec, TrainSpec
from vitsearch.space import SearchSpace, resolve_preset

ROW = re.compile(r"^\| `([^`]+)` \| ([^|]*) \| (.+) \|$", re.MULTILINE)


def models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in get_args(annotation) for found in models_in(inner)]


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Dotted name, default and description of every field; ``[]`` for each of a list, ``NAME`` for a free key."""
    for name, info in model.model_fields.items():
        path = f"{prefix}{name}"
        inner = models_in(info.annotation)
        text = str(info.annotation)
        if not inner or info.is_required() or "tuple" in text or "dict" in text or info.default is None:
            yield path, default_of(info), described(model, name)
        for part in inner:
            many = "[]" if "tuple" in text else ".NAME" if "dict" in text else ""
            yield from fields(part, f"{path}{many}.")


def default_of(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    if info.default is None:
        return "none"
    return f"`{plain(info.default)}`"


def plain(value: Any) -> str:
    """As YAML would have it on one line."""
    if isinstance(value, tuple):
        return f"[{', '.join(plain(one) for one in value)}]"
    if isinstance(value, BaseModel):
        return "{" + ", ".join(f"{k}: {plain(v)}" for k, v in value) + "}"
    if isinstance(value, str) and value:
        return value
    return json.dumps(value)


def described(model: type[BaseModel], name: str) -> str:
    """The field's sentence in the docstring: what a new row of the page can begin with."""
    found = re.search(rf"^    {name}: (.*?)(?=^    \w+: |\Z)", inspect.getdoc(model) or "", re.M | re.S)
    return " ".join(found[1].split()) if found else ""


def page(repository: Path) -> str:
    text = (repository / "docs" / "job.md").read_text(encoding="utf-8")
    return text.partition("\n## Every field\n")[2].partition("\n## ")[0]


def test_every_field_stands_in_the_reference_with_its_default(repository: Path):
    rows = {name: default for name, default, _ in ROW.findall(page(repository))}
    wanted = {path: (default, text) for path, default, text in fields(JobSpec)}
    missing = [f"| `{p}` | {d} | {t} |" for p, (d, t) in wanted.items() if rows.get(p) != d]
    assert not missing, "docs/job.md lacks, or has otherwise:\n" + "\n".join(missing)
    assert not sorted(set(rows) - set(wanted)), "docs/job.md describes what no job has"


def test_the_recipes_stand_in_the_reference(repository: Path):
    found = re.search(r"^\| recipe \|.*?(?=^\n)", page(repository), re.M | re.S)
    assert found
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", found[0], re.M))
    wanted = {}
    for name, recipe in RECIPES.items():
        changes = [
            f"`{k}: {plain(v)}`" for k, v in recipe if v != TrainSpec.model_fields[k].default and k != "recipe"
        ]
        wanted[name] = ", ".join(changes) or "the defaults above"
    assert rows == wanted


@pytest.mark.parametrize("name", ["bits.md", "combining.md", "distillation.md"])
def test_what_other_pages_put_into_a_job_is_valid(repository: Path, name: str):
    text = (repository / "docs" / name).read_text(encoding="utf-8")
    parts = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    assert parts
    for part in parts:
        is_space = not {"fixed", "dimensions"}.isdisjoint(part)
        written = {"space": {"preset": "vit_micro_8", **part}} if is_space else part
        job = JobSpec.model_validate(
            {"name": "page", "dataset": {"kind": "digits"}, "space": "vit_micro_8", **written}
        )
        if is_space:
            SearchSpace(resolve_preset(job.space), in_chans=1, num_classes=10)
