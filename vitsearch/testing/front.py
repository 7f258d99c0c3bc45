"""The front of stored results by comparing each with each, to check the one that a study tells."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

Point = Sequence[float]


def front_of_results(rows: Iterable[tuple[int, str, str]], objectives: Mapping[str, bool]) -> set[int]:
    """Numbers of the non-dominated trials, from nothing but what the database holds of them.

    Args:
        rows: ``trial``, ``outcome`` and ``figures`` of the results, as they are stored; failures are left out.
        objectives: Key of each objective's figure, and whether it is maximised.
    """
    figures = {
        trial: json.loads(stored)
        for trial, outcome, stored in sorted(rows)
        if json.loads(outcome)["kind"] == "result"
    }
    points = [tuple(found[key] for key in objectives) for found in figures.values()]
    numbers = list(figures)
    return {numbers[i] for i in front_by_comparison(points, list(objectives.values()))}


def front_by_comparison(points: Sequence[Point], maximize: Sequence[bool]) -> list[int]:
    """What ``vitsearch.pareto.non_dominated`` promises: of points equal in all objectives the first stays.

    Args:
        points: Shape (n, m); no NaN.
        maximize: Direction of each objective, length m.
    """
    return [
        i
        for i, point in enumerate(points)
        if not any(_dominates(other, point, maximize) for other in points) and point not in points[:i]
    ]


def _dominates(p: Point, q: Point, maximize: Sequence[bool]) -> bool:
    at_least = all(a >= b if up else a <= b for a, b, up in zip(p, q, maximize, strict=True))
    return at_least and p != q
