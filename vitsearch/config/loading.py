"""Files a person wrote: YAML, JSON and the job."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import Any

import yaml

from vitsearch.config.checking import parse
from vitsearch.config.job import JobSpec
from vitsearch.errors import InputError

MAX_FILE_BYTES = 4_000_000
__all__ = ["MAX_FILE_BYTES", "dump_yaml", "load_job", "load_json", "load_yaml", "parse", "read_job", "read_text"]


class _Loader(yaml.SafeLoader):
    """The safe loader, with 1e-3 a number (YAML 1.2), and errors: a key given twice, what is no character."""

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        if isinstance(value, str) and re.search("[\x00\ud800-\udfff]", value):  # in no path, on no terminal
            raise yaml.constructor.ConstructorError(
                problem="a text holds NUL or half a character", problem_mark=node.start_mark
            )
        return value

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


# What PyYAML raises of values that are not what their tags say, beside its own errors.
_UNREADABLE = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


class _Dumper(yaml.SafeDumper):
    """The safe dumper, which puts in quotes what the loader above would take for a number."""


for _way in (_Loader, _Dumper):
    _way.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
        list("-+0123456789"),
    )


def load_job(path: Path) -> JobSpec:
    """Read and check a job file.

    Raises:
        InputError: The file is missing, unreadable, not YAML or breaks a rule.
    """
    return read_job(path).resolve_paths(path.resolve().parent)


def read_job(path: Path) -> JobSpec:
    """The same with paths as they are written.

    Raises:
        InputError: As ``load_job``.
    """
    return parse(JobSpec, load_yaml(path), where=str(path))


def load_yaml(path: Path) -> Any:
    """Read one YAML document with the safe loader."""
    text = read_text(path)
    try:
        return yaml.load(text, _Loader)  # noqa: S506  # derived from the safe loader
    except _UNREADABLE as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise InputError(
            f"must be valid YAML{line}: {problem}",
            where=str(path),
            remedy="check indentation, colons and quotes",
        ) from error


def dump_yaml(value: Any) -> str:
    """What ``load_yaml`` reads back as it is, in the order given."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def load_json(path: Path) -> Any:
    """Read one JSON document."""
    text = read_text(path)
    try:
        return json.loads(text)
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


def _siblings(path: Path) -> list[str]:
    try:
        return [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return []
