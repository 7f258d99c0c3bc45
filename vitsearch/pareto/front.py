"""Non-dominated sets, hypervolume and knee, on moocore.

Every function takes points in their natural directions and a ``maximize`` flag for each objective; signs are
flipped nowhere else in vitsearch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Points = Sequence[Sequence[float]]
FloatArray = npt.NDArray[np.float64]


def non_dominated(points: Points, maximize: Sequence[bool]) -> list[int]:
    """Indices of the points no other point dominates, in input order.

    A point dominates another when it is at least as good in every objective and better in one. Of points equal in
    all objectives the first stays.

    Args:
        points: Shape (n, m); no NaN.
        maximize: Direction of each objective, length m.

    Raises:
        ValueError: A value is NaN.
    """
    import moocore

    values = _array(points, len(maximize))
    keep = moocore.is_nondominated(values, maximise=list(maximize), keep_weakly=False)
    return [int(i) for i in np.flatnonzero(keep)]


def ranks(points: Points, maximize: Sequence[bool]) -> list[int]:
    """Rank of each point: 1 on the front, 2 on the front of what is left without that one, and so on.

    Points equal in all objectives share a rank (Deb et al., 2002).

    Args:
        points: Shape (n, m); no NaN.
        maximize: Direction of each objective, length m.

    Raises:
        ValueError: A value is NaN.
    """
    import moocore

    return [int(rank) + 1 for rank in moocore.pareto_rank(_array(points, len(maximize)), maximise=list(maximize))]


def reference_point(points: Points, maximize: Sequence[bool], margin: float = 0.1) -> list[float]:
    """The worst value of each objective, moved outwards by ``margin`` of the objective's range."""
    values = _array(points, len(maximize))
    if len(values) == 0:
        raise ValueError("a reference point needs at least one point")
    low, high = values.min(axis=0), values.max(axis=0)
    span = np.where(high > low, high - low, np.maximum(np.abs(high), 1.0))
    worst = np.where(maximize, low - margin * span, high + margin * span)
    return [float(v) for v in worst]


def hypervolume(points: Points, maximize: Sequence[bool], reference: Sequence[float]) -> float:
    """Volume dominated by ``points`` and bounded by ``reference``; larger is better.

    Points no better than the reference in some objective add nothing (Zitzler and Thiele, 1998).

    Args:
        points: Shape (n, m); no NaN.
        maximize: Direction of each objective, length m.
        reference: The bounding point, length m.
    """
    import moocore

    values = _array(points, len(maximize))
    return float(moocore.hypervolume(values, ref=np.asarray(reference, dtype=float), maximise=list(maximize)))


def knee(points: Points, maximize: Sequence[bool]) -> int:
    """Index of the point that gives up least for most: the one nearest to the ideal point.

    Each objective is scaled to [0, 1] over the front, 0 best; the ideal point is the origin, distance Euclidean
    (compromise programming, Yu 1973). A front of one point has its knee there.

    Args:
        points: The front, shape (n, m), n >= 1; no NaN.
        maximize: Direction of each objective, length m.
    """
    values = _array(points, len(maximize))
    if len(values) == 0:
        raise ValueError("the knee needs at least one point")
    import moocore

    scaled = moocore.normalise(values, to_range=[0.0, 1.0], maximise=list(maximize)) if len(values) > 1 else values
    span = values.max(axis=0) - values.min(axis=0)
    scaled = np.where(span > 0, np.abs(scaled), 0.0)
    return int(np.argmin(np.linalg.norm(scaled, axis=1)))


def _array(points: Points, num_objectives: int) -> FloatArray:
    values: Any = np.asarray(points, dtype=float)
    if values.size == 0:
        return np.empty((0, num_objectives))
    if values.ndim != 2 or values.shape[1] != num_objectives:
        raise ValueError(f"points must have shape (n, {num_objectives}), but got {values.shape}")
    if np.isnan(values).any():
        raise ValueError("points must not hold NaN; leave out models without figures")
    return np.ascontiguousarray(values)
