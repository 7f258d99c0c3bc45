"""Trying a search space out, so that what is impossible in it is told before anything runs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from pydantic import ValidationError

from vitsearch.candidate import TOKEN_RULES, Candidate, Training
from vitsearch.config import TrainSpec, Value
from vitsearch.config.checking import remedy_of
from vitsearch.errors import InputError

if TYPE_CHECKING:
    from vitsearch.space.dimension import Dimension
    from vitsearch.space.space import Draw, SearchSpace

RANDOM_DRAWS = 100
VALUES_OF_AN_AXIS = 32
SECTIONS = {
    "Architecture": "architecture.", "Sparsity": "sparsity.", "Precision": "precision.", "Training": "train.",
    "DistillChoice": "train.distill.", "Candidate": "",
}  # fmt: skip


def probe(space: SearchSpace) -> tuple[Candidate, ...]:
    """Decode many draws: both ends of all axes, every value of each axis beside them, and some at random.

    Returns:
        The candidates.

    Raises:
        InputError: One of them is no model, and no setting can be moved to make it one without saying so.
    """
    seen = tuple(_tried(space, draw) for draw in probing_draws(space))
    _check_fixed(space, seen)
    return seen


def probing_draws(space: SearchSpace) -> Iterator[Draw]:
    """The same draws for the same space."""
    return chain(_beside_the_ends(space), _at_random(space))


def as_input_error(space: SearchSpace, error: Exception) -> InputError:
    """What is wrong with a draw, under the name that the space gives the setting."""
    if isinstance(error, InputError):
        return error
    if isinstance(error, KeyError):
        return _needs_a_value(space, f"architecture.{error.args[0]}")
    if isinstance(error, ValidationError):
        return _first_broken_rule(space, error)
    return _as_told(space, str(error), "")


def _beside_the_ends(space: SearchSpace) -> Iterator[Draw]:
    for pick in (0, -1):
        draw = {axis.name: axis.values()[pick] for axis in space.dimensions}
        yield draw
        for axis in space.dimensions:
            if axis.block in {None, 1}:  # the other blocks have the same values
                yield from ({**draw, axis.name: value} for value in _some(axis))


def _some(axis: Dimension) -> tuple[Value, ...]:
    """Every value, or so many of a long grid."""
    values = axis.values()
    every = 1 if axis.kind == "categorical" else -(-len(values) // VALUES_OF_AN_AXIS)
    return values[::every]


def _at_random(space: SearchSpace) -> Iterator[Draw]:
    generator = random.Random(0)
    for _ in range(RANDOM_DRAWS if space.dimensions else 0):
        yield {axis.name: axis.random(generator) for axis in space.dimensions}


def _tried(space: SearchSpace, draw: Draw) -> Candidate:
    try:
        return space.decode_as_drawn(draw)
    except (ValueError, KeyError) as error:
        raise as_input_error(space, error) from error


def recipes(space: SearchSpace, train: TrainSpec) -> dict[Training, TrainSpec]:
    """The recipes that candidates of a space have under a job's, by their own settings.

    Raises:
        InputError: Those do not go with the job's.
    """
    found = {}
    for training in dict.fromkeys(candidate.training for candidate in space.probed):
        try:
            found[training] = training.applied_to(train)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(["train", *map(str, first["loc"])])
            own = (name for name in (*space.spec.fixed, *space.spec.dimensions) if name.startswith(place))
            setting = next(own, place)
            rule = f"{first['msg'].removeprefix('Value error, ')} (with {training.summary()})"
            raise space.refusal(rule, setting) from error
    return found


def _check_fixed(space: SearchSpace, seen: tuple[Candidate, ...]) -> None:
    """Refuse a fixed figure that every draw has moved to another."""
    for name, rule in (
        ("heads", "must divide the width"),
        ("patch_size", "must divide the image size, and leave more than one patch"),
        ("share_blocks", "must divide the depth"),
    ):
        setting = f"architecture.{name}"
        found = {getattr(candidate.architecture, name) for candidate in seen}
        if setting in space.fixed and space.fixed[setting] not in found:
            near = " or ".join(map(str, sorted(found)))
            raise space.refusal(rule, setting, value=space.fixed[setting], remedy=f"write {near}")


def _needs_a_value(space: SearchSpace, setting: str) -> InputError:
    if setting in space.spec.dimensions:
        condition = ", ".join(f"{name}: {value}" for name, value in space.spec.dimensions[setting].when.items())
        return space.refusal(
            f"is needed where its condition ({condition}) does not hold, too",
            setting,
            remedy="widen the condition, or leave it out",
        )
    return space.refusal("needs a value", setting, remedy="add it under fixed or dimensions")


def _first_broken_rule(space: SearchSpace, error: ValidationError) -> InputError:
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"][:1])
    setting = (SECTIONS.get(error.title, "tokens.") + name).rstrip(".")
    if first["type"] == "missing":
        return _needs_a_value(space, setting)
    if first["type"] == "value_error":
        return _as_told(space, first["msg"].removeprefix("Value error, "), setting)
    rule = first["msg"][0].lower() + first["msg"][1:]
    return space.refusal(rule, setting, value=first["input"], remedy=remedy_of(first))


def _as_told(space: SearchSpace, sentence: str, setting: str) -> InputError:
    """One of our own sentences, which name value and remedy, and often begin with the setting."""
    from vitsearch.space.space import known_fields

    first = sentence.partition(" ")[0]
    if first in known_fields():
        setting, sentence = first, sentence.partition(" ")[2]
    elif first in TOKEN_RULES:
        setting = "tokens.reducer"
    return space.refusal(sentence, setting)
