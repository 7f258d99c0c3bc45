"""One axis of a search space and the values it can take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import Literal

from vitsearch.config import DimensionSpec, Value

Kind = Literal["categorical", "int", "float"]


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One axis as a sampler sees it; a per-block dimension becomes one axis per block.

    Attributes:
        name: Axis name, ``precision.weight_bits`` or ``precision.weight_bits[3]`` (blocks from 1).
        field: The candidate setting it fills, ``precision.weight_bits``.
        block: Block number, from 1, of a per-block axis.
        kind: Which of the fields below apply.
        choices: Values of a categorical axis.
        low: Smallest value of a range.
        high: Largest value of a range.
        step: Grid of a range; None is a continuum.
        log: Whether the range is drawn on a logarithmic scale.
        when: The axis counts only when every named dimension has one of these values.
    """

    name: str
    field: str
    block: int | None
    kind: Kind
    choices: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    when: tuple[tuple[str, tuple[Value, ...]], ...] = ()

    @property
    def cardinality(self) -> int | None:
        """Number of values; None for a continuum."""
        if self.kind == "categorical":
            return len(self.choices)
        return None if self.step is None else math.floor((self.high - self.low) / self.step + 1e-9) + 1

    def values(self) -> tuple[Value, ...]:
        """All values of a finite axis, or both ends of a continuum."""
        if self.kind == "categorical":
            return self.choices
        if self.step is None:
            return (self.low, self.high)
        grid = [self.low + i * self.step for i in range(self.cardinality or 0)]
        return tuple(round(v) for v in grid) if self.kind == "int" else tuple(grid)

    def values_near(self, value: Value) -> tuple[Value, ...]:
        """The other values, of a range the nearest first."""
        others = [other for other in self.values() if other != value]
        if self.kind != "categorical" and not isinstance(value, str):
            others.sort(key=lambda other: abs(float(other) - float(value)))
        return tuple(others)

    def random(self, generator: Random) -> Value:
        """A value at random, as likely as any other."""
        if self.cardinality is not None:
            return generator.choice(self.values())
        if self.log:
            return math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
        return generator.uniform(self.low, self.high)

    def contains(self, value: Value) -> bool:
        """Whether ``value`` lies on the axis."""
        if self.kind == "categorical":
            return value in self.choices
        return not isinstance(value, str) and self.low - 1e-9 <= value <= self.high + 1e-9


def expand(field: str, spec: DimensionSpec, max_depth: int) -> list[Dimension]:
    """The axes of one dimension: itself, or one for each block up to ``max_depth``."""
    when = tuple((name, value if isinstance(value, tuple) else (value,)) for name, value in spec.when.items())
    step = spec.step if spec.step is not None else (1 if spec.is_integer and not spec.log else None)
    kind: Kind = "categorical" if spec.choices is not None else ("int" if spec.is_integer else "float")
    if kind == "int" and spec.log:
        step = 1
    blocks: list[int | None] = list(range(1, max_depth + 1)) if spec.per_block else [None]
    return [
        Dimension(
            name=field if block is None else f"{field}[{block}]",
            field=field,
            block=block,
            kind=kind,
            choices=spec.choices or (),
            low=spec.low or 0,
            high=spec.high or 0,
            step=step,
            log=spec.log,
            when=when,
        )
        for block in blocks
    ]
