"""From a file to a checked object, or to one error that says what to change."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from vitsearch.config.job import JobSpec
from vitsearch.errors import InputError

MAX_FILE_BYTES = 4_000_000
ModelT = TypeVar("ModelT", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """The safe loader, with 1e-3 a number (YAML 1.2) and a key given twice an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark
                )
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def load_job(path: Path) -> JobSpec:
    """Read and check a job file.

    Raises:
        InputError: The file is missing, unreadable, not YAML or breaks a rule.
    """
    job = parse(JobSpec, load_yaml(path), where=str(path))
    return job.resolve_paths(path.resolve().parent)


def load_yaml(path: Path) -> Any:
    """Read one YAML document with the safe loader."""
    text = read_text(path)
    try:
        return yaml.load(text, _Loader)  # noqa: S506  # derived from the safe loader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise InputError(
            f"must be valid YAML{line}: {problem}",
            where=str(path),
            remedy="check indentation, colons and quotes",
        ) from error


def load_json(path: Path) -> Any:
    """Read one JSON document."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"must be valid JSON: {error}", where=str(path)) from error


def read_text(path: Path) -> str:
    """Read a small UTF-8 text file, with errors a person can act on."""
    try:
        if path.is_dir():
            raise InputError("must be a file, not a folder", where=str(path))
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"must be at most {MAX_FILE_BYTES / 1e6:g} MB", where=str(path))
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        near = difflib.get_close_matches(path.name, _siblings(path), n=1)
        remedy = f"did you mean {path.with_name(near[0])}?" if near else "check the path"
        raise InputError("the file does not exist", where=str(path), remedy=remedy) from error
    except UnicodeDecodeError as error:
        raise InputError("must be UTF-8 text", where=str(path)) from error
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(path)) from error


def parse(model: type[ModelT], data: Any, *, where: str) -> ModelT:
    """Check ``data`` against ``model``.

    Raises:
        InputError: Names file, field, value, rule and remedy of the first broken rule; the others follow.
    """
    if not isinstance(data, dict):
        raise InputError("must hold named fields (key: value)", where=where, value=data)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _as_input_error(error, model, data, where) from error


def _as_input_error(error: ValidationError, model: type[BaseModel], data: Any, where: str) -> InputError:
    found: list[InputError] = []
    for detail in error.errors(include_url=False):
        location = _written_path(detail["loc"], data)
        value = None if detail["type"] in {"missing", "extra_forbidden"} else detail.get("input")
        rule, remedy = detail["msg"].removeprefix("Value error, "), ""
        if detail["type"] == "extra_forbidden":
            rule, remedy = "is not a known field", _did_you_mean(location, model)
        elif detail["type"] == "missing":
            rule, remedy = "is required", "add it"
        elif detail["type"] == "value_error":
            value = None  # our own sentences name the value
        else:
            rule = _PYTHON_WORDS.sub(_plain_word, rule[0].lower() + rule[1:])
            expected = (detail.get("ctx") or {}).get("expected")
            near = difflib.get_close_matches(str(value), [e.strip("' ") for e in str(expected).split(",")], n=1)
            remedy = f"did you mean {near[0]!r}?" if expected and near else ""
        found.append(InputError(rule, where=where, field=".".join(location), value=value, remedy=remedy))
    first = found[0]
    seen = {first.field}
    for other in found[1:]:
        if other.field not in seen:  # a union reports one failure per member
            seen.add(other.field)
            first.more.append(other)
    return first


_PYTHON_WORDS = re.compile(r"(a valid )?tuple|a valid (dictionary or instance of \w+)")


def _plain_word(match: re.Match[str]) -> str:
    if match[2]:
        return "named fields (key: value)"
    return "a list" if match[1] else "list"


def _written_path(location: tuple[int | str, ...], data: Any) -> list[str]:
    """The path as the person wrote it: pydantic adds the names of union members, which no file holds."""
    path: list[str] = []
    current = data
    for i, part in enumerate(location):
        inside = isinstance(current, dict) and part in current
        if inside or (isinstance(current, list | tuple) and isinstance(part, int)):
            current = current[part]
        elif not (isinstance(current, dict) and i == len(location) - 1 and _is_name(part)):
            continue
        path.append(str(part))
    return path


def _is_name(part: int | str) -> bool:
    """Whether a last part is a missing field rather than a union member such as ``int`` or ``tuple[...]``."""
    return isinstance(part, str) and "[" not in part and part not in {"int", "float", "str", "bool", "tuple"}


def _did_you_mean(location: list[str], model: type[BaseModel]) -> str:
    models = [model]
    for part in location[:-1]:
        named = [m.model_fields[part].annotation for m in models if part in m.model_fields]
        models = [found for annotation in named for found in _models_in(annotation)] if named else models
    known = sorted({name for m in models for name in m.model_fields})
    near = difflib.get_close_matches(location[-1], known, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known fields are {', '.join(known)}" if known else ""


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The record types inside ``tuple[X, ...]``, ``X | None``, ``dict[str, X]`` and the like."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [
            annotation,
            *annotation.__subclasses__(),
        ]  # an abstract record stands for those that a name tells apart
    return [found for inner in get_args(annotation) for found in _models_in(inner)]


def _siblings(path: Path) -> list[str]:
    try:
        return [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return []
