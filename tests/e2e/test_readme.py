"""What README and docs tell people to type exists, parses, and does what they say."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
import yaml
from PIL import Image
from sklearn.datasets import load_digits

from tests.e2e.harness import results_stored, run, wait_for, write_job
from vitsearch.cli.main import app
from vitsearch.config import JobSpec
from vitsearch.report import space_of
from vitsearch.space import resolve_preset
from vitsearch.storage import DataSummary

pytestmark = pytest.mark.xdist_group("e2e-readme")

COMMAND = re.compile(r"^\s*(vitsearch [^#\n]+)", re.MULTILINE)
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
# Left to other tests: a server until Ctrl-C (test_browser), and a search of a hundred trials (test_survive).
TOO_LONG = {"vitsearch ui runs/demo", "vitsearch resume runs/demo --trials 100"}


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


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A folder as the README finds it after `make demo`: a finished study with a digit, and somebody's photos."""
    folder = tmp_path_factory.mktemp("workplace")
    job = write_job(folder, search={"trials": 3, "max_workers": 1})
    found = run("run", job, "--out", folder / "runs" / "demo")
    assert found.returncode == 0, found.stderr
    job.unlink()
    save = [sys.executable, str(repository / "examples" / "save_test_image.py"), "runs/demo/digit.png"]
    subprocess.run(save, cwd=folder, check=True)
    digits = load_digits()
    for number in range(90):
        into = folder / "photos" / f"a {digits.target[number]}"
        into.mkdir(parents=True, exist_ok=True)
        pixels = np.round(digits.images[number] * 255 / 16).astype(np.uint8)
        Image.fromarray(pixels).resize((12, 12)).save(into / f"{number}.png")
    return folder


def typed(line: str, folder: Path) -> str:
    """The line, in a shell in that folder; what it prints."""
    command = ["bash", "-ec", line]
    found = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": PATH}, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, f"{line}\n{found.stdout}{found.stderr}"
    return found.stdout


def search_until_ctrl_c(line: str, folder: Path) -> None:
    """A line that searches for long: stopped after a first result, as the README says one may."""
    out = folder / shlex.split(line)[-1]
    process = subprocess.Popen(
        ["bash", "-ec", f"exec {line}"], cwd=folder, env={**os.environ, "PATH": PATH}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    wait_for(lambda: results_stored(out) >= 1, process)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "Pareto front of photos" in output


@pytest.mark.slow
def test_the_readme_does_what_it_says(workplace: Path, repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    blocks = [
        c.strip() for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for c in COMMAND.findall(block)
    ]
    assert len(blocks) >= 5
    printed = {}
    for line in blocks:
        if line.startswith("vitsearch run "):
            search_until_ctrl_c(line, workplace)
        elif line not in TOO_LONG:
            printed[line] = typed(line, workplace)

    assert "Pareto front of tiny" in printed["vitsearch pareto runs/demo"]
    saved = yaml.safe_load((workplace / "runs" / "photos" / "job.yaml").read_text(encoding="utf-8"))
    assert (saved["dataset"]["kind"], saved["space"]["preset"]) == ("imagefolder", "vit_micro_8")
    answer = printed["vitsearch predict model runs/demo/digit.png"]
    found = re.fullmatch(r"runs/demo/digit\.png: (\d) \(\d+\.\d %\)\n", answer)
    assert found, answer

    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    python = subprocess.run(
        [sys.executable, "-c", block], cwd=workplace, capture_output=True, text=True, check=False
    )
    assert python.returncode == 0, python.stderr
    assert python.stdout.strip() == found.group(1), "Python and the command line see the same digit"


@pytest.mark.slow
def test_the_pareto_options_that_the_readme_names(workplace: Path, repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    found = re.search(r"^(vitsearch pareto \S+)\s+#.*", text, re.MULTILINE)
    assert found
    assert re.findall(r"--\w+", found.group()) == ["--json", "--png", "--html"]
    line = found.group(1)
    assert json.loads(typed(f"{line} --json", workplace))["front"]
    typed(f"{line} --png front.png --html front.html", workplace)
    with Image.open(workplace / "front.png") as picture:
        assert picture.size[0] > 500
    assert "Plotly" in (workplace / "front.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_commands_in_the_running_text(workplace: Path, repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"`(vitsearch [^`]+)`", text)
    lines = [" ".join(line.split()) for line in lines]
    assert set(lines) > TOO_LONG - {"vitsearch ui runs/demo"}, "the list of what is left out is up to date"
    job = write_job(workplace)
    printed = {line: typed(line, workplace) for line in lines if line not in TOO_LONG}
    assert f"{job.name}: valid" in printed["vitsearch validate job.yaml"]
    assert "Pareto front of tiny" in printed["vitsearch resume runs/demo"]
    for preset in (repository / "search_spaces").glob("*.yaml"):
        assert preset.stem in printed["vitsearch spaces"]
    assert "torch" in printed["vitsearch doctor"]
    assert printed["vitsearch eer --params-m 24.1 --flops-g 4.5"] == "26.7 %\n"
