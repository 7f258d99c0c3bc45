"""How a search space is written down; ``vitsearch.space`` gives it meaning."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from vitsearch.config.base import Spec


def _single(value: Any) -> Any:
    if value is None or isinstance(value, list | dict):
        kind = "a list" if isinstance(value, list) else "a mapping" if isinstance(value, dict) else "nothing"
        raise ValueError(
            f"must be one number, word, true or false, but got {kind}; write '2,4' where a setting takes several "
            "block numbers"
        )
    return value


Value = StrictBool | StrictInt | StrictFloat | StrictStr
SingleValue = Annotated[Value, BeforeValidator(_single)]


LARGEST = 1e12
MOST_VALUES = 100_000


class DimensionSpec(Spec):
    """One dimension: either ``choices`` or a range.

    A range of integers needs ``low`` and ``high`` as integers, any other range is of floats.

    Attributes:
        choices: The values of a categorical dimension.
        low: Smallest value, inclusive.
        high: Largest value, inclusive.
        step: Grid of a range; integers default to 1, floats to a continuum.
        log: Draw on a logarithmic scale.
        per_block: One value for each transformer block instead of one for all.
        when: The dimension counts only when every named dimension has the given value, or one of a list.
    """

    choices: Annotated[tuple[SingleValue, ...], Field(min_length=1)] | None = None
    low: StrictInt | StrictFloat | None = None
    high: StrictInt | StrictFloat | None = None
    step: StrictInt | StrictFloat | None = None
    log: bool = False
    per_block: bool = False
    when: dict[str, Value | tuple[Value, ...]] = {}

    @model_validator(mode="after")
    def _either_choices_or_range(self) -> Self:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.step is not None or self.log:
                raise ValueError("a dimension has either choices or low/high/step/log; remove one of the two")
            if len(set(self.choices)) != len(self.choices):
                raise ValueError(f"choices must differ from each other, but got {list(self.choices)}")
            return self
        if self.low is None or self.high is None:
            raise ValueError("a dimension needs choices: [...], or both low and high")
        if self.low > self.high:
            raise ValueError(f"low must not exceed high, but got low={self.low}, high={self.high}")
        if max(abs(self.low), abs(self.high), self.step or 0) > LARGEST:
            raise ValueError(f"low, high and step must be at most {LARGEST:g}; choose smaller ones")
        if self.step is not None and (self.step <= 0 or self.log):
            raise ValueError("step must be positive and cannot go with log; remove step or log")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs low > 0, but got low={self.low}")
        if self.is_integer and isinstance(self.step, float):
            raise ValueError(f"an integer range needs an integer step, but got {self.step}")
        step = self.step or (1 if self.is_integer else None)
        if step is not None and (self.high - self.low) / step > MOST_VALUES:
            raise ValueError(
                f"a range has at most {MOST_VALUES:,} values, but got {(self.high - self.low) / step:,.0f}; "
                "choose a larger step, or write 1.0 instead of 1 for a continuum"
            )
        return self

    @property
    def is_integer(self) -> bool:
        """Whether this is a range of integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)


class SpaceSpec(Spec):
    """A whole search space.

    Attributes:
        name: How people refer to it.
        description: One or two sentences for ``vitsearch spaces``.
        preset: A preset to start from; ``fixed`` and ``dimensions`` given here override its entries.
        fixed: Values that do not vary, by dotted name (``architecture.image_size: 32``).
        dimensions: What varies, by dotted name.
        drop: Dimensions of the preset to leave out.
    """

    name: str = "custom"
    description: str = ""
    preset: str | None = None
    fixed: dict[str, SingleValue] = {}
    dimensions: dict[str, DimensionSpec] = {}
    drop: tuple[str, ...] = ()
