"""From plain data to a checked object, or to one error that says what to change."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from vitsearch.errors import InputError

MOST_ERRORS = 50
ModelT = TypeVar("ModelT", bound=BaseModel)


def parse(model: type[ModelT], data: Any, *, where: str) -> ModelT:
    """Check ``data`` against ``model``.

    A word is not taken for a number nor ``true`` for 1, although the models themselves would; 5 and 5.0 are one.

    Raises:
        InputError: Names file, field, value, rule and remedy of the first broken rule; the others follow.
    """
    if not isinstance(data, dict):
        raise InputError("must hold named fields (key: value)", where=where, value=data,
                         remedy="write one line for each field")  # fmt: skip
    try:
        checked = model.model_validate(data)
    except ValidationError as error:
        raise _as_input_error(error, model, data, where) from error
    converted = [
        InputError(rule, where=where, field=".".join(path), value=value, remedy=remedy)
        for path, value, rule, remedy in _conversions(data, checked, ())
    ]
    if converted:
        converted[0].more = converted[1:]
        raise converted[0]
    return checked


def remedy_of(detail: ErrorDetails) -> str:
    """What to do about one of pydantic's errors; empty where its own sentence says so."""
    kind = detail["type"]
    if kind == "literal_error":
        known = [word.strip("' ") for word in re.split(r",| or ", str(detail.get("ctx", {}).get("expected")))]
        is_word = isinstance(detail["input"], str)  # digits of a number say nothing of how near another one is
        near = difflib.get_close_matches(detail["input"], known, n=1) if is_word else []
        return f"did you mean {near[0]!r}?" if near else "choose one of these"
    return next((remedy for pattern, remedy in _REMEDIES.items() if re.fullmatch(pattern, kind)), "")


_REMEDIES = {
    "greater_than(_equal)?": "choose a larger number",
    "less_than(_equal)?": "choose a smaller number",
    "too_short": "add to it",
    "too_long|string_too_long": "shorten it",
    "int_.*": "write a whole number",
    "float_.*|finite_number": "write a number",
    "bool_.*": "write true or false",
    "string_type|path_type": "write a word, in quotes if it looks like a number",
    "string_pattern_mismatch": "use other characters",
    "(tuple|list)_type": "write [one, two]",
    "(model|dict)(_attributes)?_type": "write key: value, one line for each",
}


def _conversions(
    given: Any, checked: Any, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any, str, str]]:
    """Each place where the check turned a value into one of another kind: path, value, rule and remedy."""
    if isinstance(checked, BaseModel) and isinstance(given, dict):
        for name in (name for name in given if name in type(checked).model_fields):
            yield from _conversions(given[name], getattr(checked, name), (*path, name))
    elif isinstance(checked, dict) and isinstance(given, dict):
        for name in (name for name in given if name in checked):
            yield from _conversions(given[name], checked[name], (*path, str(name)))
    elif isinstance(checked, list | tuple) and isinstance(given, list | tuple):
        for i, (one, other) in enumerate(zip(given, checked, strict=False)):
            yield from _conversions(one, other, (*path, str(i)))
    elif isinstance(checked, bool):
        if not isinstance(given, bool):
            yield path, given, "must be true or false", "write true or false, without quotes"
    elif isinstance(checked, int | float):
        if isinstance(given, bool) or not isinstance(given, int | float):
            rule = "must be a whole number" if isinstance(checked, int) else "must be a number"
            yield path, given, rule, "write it without quotes" if isinstance(given, str) else "write a number"
    elif isinstance(checked, str) and not isinstance(given, str):
        yield path, given, "must be text", "put it in quotes"


def _as_input_error(error: ValidationError, model: type[BaseModel], data: Any, where: str) -> InputError:
    found: list[InputError] = []
    details = error.errors(include_url=False)
    for detail in details:
        if detail["type"] == "too_short" and any(_is_inside(other["loc"], detail["loc"]) for other in details):
            continue  # pydantic counts only the parts that are right
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
            rule, remedy = _PYTHON_WORDS.sub(_plain_word, rule[0].lower() + rule[1:]), remedy_of(detail)
        found.append(InputError(rule, where=where, field=".".join(location), value=value, remedy=remedy))
    first = found[0]
    seen = {first.field}
    for other in found[1:]:
        if other.field not in seen:  # a union reports one failure per member
            seen.add(other.field)
            first.more.append(other)
    if len(first.more) > MOST_ERRORS:
        left = len(first.more) - MOST_ERRORS
        first.more[MOST_ERRORS:] = [InputError(f"and {left:,} errors more", where=where)]
    return first


def _is_inside(inner: tuple[int | str, ...], outer: tuple[int | str, ...]) -> bool:
    return len(inner) > len(outer) and inner[: len(outer)] == outer


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
