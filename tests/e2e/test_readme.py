"""What README and docs tell people to type exists and parses."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from vitsearch.cli.main import app
from vitsearch.config import JobSpec
from vitsearch.report import space_of
from vitsearch.space import resolve_preset
from vitsearch.storage import DataSummary

COMMAND = re.compile(r"^\s*(vitsearch [^#\n]+)", re.MULTILINE)


def commands_in(text: str) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    inline = [code for code in re.findall(r"`(vitsearch [^`]+)`", text) if "|" not in code]
    return [c.strip() for block in blocks for c in COMMAND.findall(block)] + inline


@pytest.mark.parametrize("page", ["README.md", "docs/job.md", "CONTRIBUTING.md"])
def test_every_command_parses(repository: Path, page: str) -> None:
    commands = commands_in((repository / page).read_text(encoding="utf-8"))
    group = typer.main.get_command(app)
    for line in commands:
        words = shlex.split(line.partition(">")[0])[1:]
        name, *rest = words
        command = group.commands[name]  # type: ignore[attr-defined]
        command.make_context(name, rest)
    assert commands or page == "CONTRIBUTING.md"


def test_every_make_target_in_the_readme_exists(repository: Path) -> None:
    targets = set(re.findall(r"make ([a-z-]+)", (repository / "README.md").read_text(encoding="utf-8")))
    defined = set(re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "test", "test-all"} <= targets <= defined


def test_the_job_in_the_docs_is_a_job(repository: Path) -> None:
    text = (repository / "docs" / "job.md").read_text(encoding="utf-8")
    job = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[0])
    job["space"]["fixed"]["tokens.tau"] = 0.001  # as the comment beside it says
    spec = JobSpec.model_validate(job)
    data = DataSummary(
        fingerprint="0", class_names=("a", "b"), in_chans=3, image_size=64, mean=(0.5,) * 3, std=(0.5,) * 3,
        num_train=1, num_val=1, num_test=1, chance_accuracy=0.5,
    )  # fmt: skip
    space = space_of(spec, data)
    assert resolve_preset(spec.space).fixed["architecture.patch_size"] == 8
    assert "tokens.tau" not in {axis.name for axis in space.dimensions}


def test_pictures_in_the_readme_are_there(repository: Path) -> None:
    for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (repository / "README.md").read_text(encoding="utf-8")):
        assert (repository / name).stat().st_size > 10_000
