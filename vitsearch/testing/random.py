"""Random members of a search space."""

from __future__ import annotations

import random
from collections.abc import Iterator

from vitsearch.candidate import Candidate
from vitsearch.config import Value
from vitsearch.space import SearchSpace


def random_draw(space: SearchSpace, generator: random.Random) -> dict[str, Value]:
    """A value for every axis, uniform on each axis' own scale."""
    return {axis.name: axis.random(generator) for axis in space.dimensions}


def random_candidates(space: SearchSpace, count: int, *, seed: int = 0) -> Iterator[Candidate]:
    """Independent random candidates; repeats are possible."""
    generator = random.Random(seed)
    return (space.decode(random_draw(space, generator)) for _ in range(count))
