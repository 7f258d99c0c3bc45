"""Commands, options, variables and versions in ``deploy/`` are those of the programs that read them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from tests.unit.deploy.factory import DEPLOY, YAML_FILES, commands, compose, containers, documents, stages, text
from vitsearch.cli import head
from vitsearch.cli.main import app

ROOT = Path(__file__).parents[3]
PAGES = ["Dockerfile", "README.md", *(str(file.relative_to(DEPLOY)) for file in YAML_FILES)]


def options_of(command: Any) -> set[str]:
    return {name for option in command.params for name in (*option.opts, *option.secondary_opts)}


def check(words: list[str], group: Any) -> None:
    """That a group has the command, and the command every option."""
    name = words[0]
    assert name in group.commands, " ".join(words)
    if hasattr(group.commands[name], "commands"):
        check(words[1:], group.commands[name])
        return
    given = {word.partition("=")[0] for word in words[1:] if word.startswith("-")}
    assert given <= options_of(group.commands[name]), " ".join(words)


def of(program: str) -> list[list[str]]:
    found = [words for words in commands() if words[0] == program]
    assert found, f"no command of {program} was found, so nothing would be checked"
    return found


def test_ours_are_there_with_their_options() -> None:
    for words in of("vitsearch"):
        check(words[1:], typer.main.get_command(app))


def test_modules_of_ours_are_there_with_their_options() -> None:
    for words in of("python"):
        assert words[:3] == ["python", "-m", "vitsearch.cli.on_cluster"]
        check(words[3:], typer.main.get_command(head.app))


def test_ray_s_are_there_with_their_options() -> None:
    from ray.scripts.scripts import cli

    for words in of("ray"):
        check(words[1:], cli)


def test_mlflow_s_are_there_with_their_options() -> None:
    asked = subprocess.run([sys.executable, "-m", "mlflow", "server", "--help"], capture_output=True, text=True,
                           check=True, timeout=120)  # fmt: skip
    for words in of("mlflow"):
        assert words[1] == "server"
        for word in words[2:]:
            if word.startswith("-"):
                assert word.partition("=")[0] in asked.stdout, word


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")  # MLflow's own, at its import
def test_mlflow_lets_in_the_names_it_is_called_by_and_no_other() -> None:
    from mlflow.server.security_utils import is_allowed_host_header

    servers = [words for words in of("mlflow") if len(words) > 2]
    assert len(servers) == 2
    for words, service in zip(servers, ("vitsearch-mlflow", "mlflow"), strict=True):
        hosts = re.search(r"--allowed-hosts[ =](\S+)", " ".join(words))
        assert hosts
        allowed = hosts[1].split(",")
        for host in (f"{service}:5000", "localhost:5000", "127.0.0.1:5000"):
            assert is_allowed_host_header(allowed, host), host
        for host in ("elsewhere.example", f"{service}.elsewhere.example:5000"):
            assert not is_allowed_host_header(allowed, host), host


def environment() -> set[str]:
    """Every variable that a file sets for a container, or that a script exports."""
    names = {name for service in compose()["services"].values() for name in service.get("environment", {})}
    names |= {variable["name"] for _, container in containers() for variable in container.get("env", [])}
    names |= {name for rest in stages()[-1].of("ENV") for name in re.findall(r"([A-Z_]+)=", rest)}
    for page in PAGES:
        names |= set(re.findall(r"(?:--env |export |^(?=RAY_))([A-Z_]+)=", text(page), re.MULTILINE))
        names |= set(re.findall(r"\b(?:MLFLOW|VITSEARCH)_[A-Z_]+", text(page)))
    return names


def test_every_variable_is_read_by_somebody() -> None:
    from importlib import metadata

    import psycopg
    from mlflow import environment_variables

    libpq = {default.envvar.decode() for default in psycopg.pq.Conninfo.get_defaults() if default.envvar}
    compose_s_own = set(re.findall(r"\$\{(\w+)", text("compose.yaml")))
    images = {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD", "POSTGRES_PASSWORD_FILE", "PGDATA"}
    python = {"PYTHONUNBUFFERED"}
    ours = {head.TRACKING_VARIABLE, head.DATABASE_VARIABLE, "RAY_ADDRESS"}
    rest = environment() - libpq - compose_s_own - images - python - ours - set(vars(environment_variables))
    ray = b"".join(
        Path(str(metadata.distribution("ray").locate_file(file))).read_bytes()
        for file in ("ray/_raylet.so", "ray/_common/usage/usage_lib.py", "ray/_common/usage/usage_constants.py")
    )
    assert rest
    assert not [name for name in sorted(rest) if name.encode() not in ray]


def pinned(package: str) -> str:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    (found,) = (line.partition("==")[2] for line in lines if line.startswith(f"{package}=="))
    return found


def test_ray_is_the_pinned_one_everywhere() -> None:
    found = [v for page in PAGES for v in re.findall(r"(?:rayVersion: \"|ray\[default\]==)([\d.]+)", text(page))]
    assert len(found) == 3
    assert set(found) == {pinned("ray")}


def test_the_image_of_ours_is_tagged_with_our_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    found = [v for page in PAGES for v in re.findall(r"\bvitsearch:(\d[\w.]*)", text(page))]
    assert len(found) > 5
    assert set(found) == {version}


def test_images_of_others_are_pinned_and_the_same_everywhere() -> None:
    found = {
        image for page in PAGES for image in re.findall(r"image: (\S+)", text(page)) if "vitsearch" not in image
    }
    assert found == {"postgres:17.6-bookworm"}
    assert not [page for page in PAGES if ":latest" in text(page)]


@pytest.mark.parametrize("file", YAML_FILES, ids=lambda file: file.name)
def test_no_key_is_written_twice(file: Path) -> None:
    """PyYAML keeps the last without a word; Kubernetes and Compose refuse."""

    class Strict(yaml.SafeLoader):
        pass

    def mapping(loader: Strict, node: yaml.MappingNode) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"{file.name}: {node.start_mark.line + 1}"
        loader.flatten_mapping(node)
        return yaml.SafeLoader.construct_mapping(loader, node, deep=True)

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    with file.open(encoding="utf-8") as stream:
        assert list(yaml.load_all(stream, Strict)) == documents(file)


def test_the_page_names_every_file_and_no_other() -> None:
    named = set(re.findall(r"\]\(([^)#]+)\)", text("README.md")))
    there = {str(file.relative_to(DEPLOY)) for file in DEPLOY.rglob("*") if file.is_file()}
    assert named == there - {"README.md"} - {name for name in there if name.startswith("secrets/")}
