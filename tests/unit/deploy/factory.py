"""Reading what ``deploy/`` holds: files, containers, command lines."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[3] / "deploy"
YAML_FILES = sorted(DEPLOY.rglob("*.yaml"))
KUBERNETES_FILES = sorted((DEPLOY / "kuberay").glob("*.yaml"))


def text(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def documents(file: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(file.read_text(encoding="utf-8")))


def compose() -> dict[str, Any]:
    return documents(DEPLOY / "compose.yaml")[0]


def interpolated(value: str) -> str:
    """As Compose reads a string where no variable is set: defaults in place, ``$$`` for a dollar sign."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value).replace("$$", "$")


def manifests() -> list[dict[str, Any]]:
    return [document for file in KUBERNETES_FILES for document in documents(file)]


def kinds(kind: str) -> list[dict[str, Any]]:
    return [document for document in manifests() if document["kind"] == kind]


def ray_specs() -> list[dict[str, Any]]:
    """The RayCluster specifications, each on its own or inside a RayJob."""
    return [d["spec"] for d in kinds("RayCluster")] + [d["spec"]["rayClusterSpec"] for d in kinds("RayJob")]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod's specification, with a name for messages."""
    for document in manifests():
        name = f"{document['kind']} {document['metadata']['name']}"
        if document["kind"] in {"Deployment", "StatefulSet"}:
            yield name, document["spec"]["template"]["spec"]
        if document["kind"] in {"RayCluster", "RayJob"}:
            spec = document["spec"].get("rayClusterSpec", document["spec"])
            for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
                yield f"{name} {group.get('groupName', 'head')}", group["template"]["spec"]


def containers() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, pod in pods():
        for container in pod["containers"]:
            yield f"{name} {container['name']}", container


def page_code() -> list[str]:
    """The blocks and words of the page that are set as code."""
    page = text("README.md")
    blocks = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    return blocks + re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", re.sub(r"```.*?```", "", page, flags=re.DOTALL))


def commands() -> list[list[str]]:
    """Every command that a file or the page gives to a program of ours, of Ray or of MLflow, as words."""
    scripts = [*page_code(), re.sub(r"^ *# ?", "", text("ray-cluster.yaml"), flags=re.MULTILINE)]
    lists = []
    for service in compose()["services"].values():
        command = [interpolated(word) for word in service.get("command", [])]
        lists += [command] if command[:1] not in ([], ["bash"]) else []
        scripts += command[2:] if command[:1] == ["bash"] else []
    for _, container in containers():
        lists += [container["command"]] if "command" in container else []
    for document in kinds("ConfigMap"):
        scripts += document["data"].values()
    for config in documents(DEPLOY / "ray-cluster.yaml"):
        scripts += config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    joined = [re.sub(r"\\\n\s*", " ", script) for script in scripts]
    return lists + [words for script in joined for line in script.splitlines() for words in _commands_of(line)]


def _commands_of(line: str) -> Iterator[list[str]]:
    begin = re.compile(r"(?:^|[\s(])((?:ray|mlflow|vitsearch) [a-z-]+|python -m vitsearch\.\S+)(?=$|\s)(.*)")
    while found := begin.search(line):
        rest = re.split(r"[;|&>]|(?<=\s)#|(?<=\s)-- ", found[2])[0]
        yield shlex.split(found[1] + rest)
        line = found[2][len(rest) :]


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


@dataclass
class Stage:
    """One ``FROM`` of a Dockerfile with its instructions."""

    image: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def of(self, word: str) -> list[str]:
        return [rest for instruction, rest in self.instructions if instruction == word]


def stages() -> list[Stage]:
    """The Dockerfile, its continued lines joined and comments left out."""
    lines = [line for line in text("Dockerfile").splitlines() if not line.lstrip().startswith("#")]
    found: list[Stage] = []
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        if not line.strip():
            continue
        word, _, rest = line.partition(" ")
        if word == "FROM":
            image, _, name = rest.partition(" AS ")
            found.append(Stage(image.strip(), name.strip()))
        else:
            found[-1].instructions.append((word, rest.strip()))
    return found
