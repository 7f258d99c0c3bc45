"""Fronts against a brute force in plain Python."""

from hypothesis import given, settings
from hypothesis import strategies as st

from vitsearch.pareto import hypervolume, knee, non_dominated, reference_point
from vitsearch.testing import front_by_comparison

Case = tuple[list[tuple[float, ...]], list[bool]]


@st.composite
def cases(draw: st.DrawFn, min_points: int = 0) -> Case:
    """Points on a coarse grid, so that ties and duplicates abound, and directions."""
    m = draw(st.integers(2, 4))
    figure = st.one_of(st.integers(0, 3).map(float), st.floats(-5, 5, width=16))
    points = draw(st.lists(st.tuples(*[figure] * m), min_size=min_points, max_size=25))
    return points, draw(st.lists(st.booleans(), min_size=m, max_size=m))


@given(case=cases())
@settings(max_examples=300, deadline=None)
def test_the_front_is_what_brute_force_finds(case: Case):
    points, maximize = case
    assert non_dominated(points, maximize) == front_by_comparison(points, maximize)


@given(case=cases(min_points=1))
@settings(max_examples=100, deadline=None)
def test_flipping_every_direction_and_sign_changes_nothing(case: Case):
    points, maximize = case
    negated = [tuple(-v for v in p) for p in points]
    assert non_dominated(negated, [not up for up in maximize]) == non_dominated(points, maximize)


@given(case=cases(min_points=1))
@settings(max_examples=100, deadline=None)
def test_the_front_alone_has_the_volume(case: Case):
    points, maximize = case
    reference = reference_point(points, maximize)
    front = [points[i] for i in non_dominated(points, maximize)]
    whole = hypervolume(points, maximize, reference)
    assert whole > 0
    assert abs(hypervolume(front, maximize, reference) - whole) <= 1e-9 * whole


@given(case=cases(min_points=1))
@settings(max_examples=100, deadline=None)
def test_the_knee_is_on_the_front_and_nearest(case: Case):
    points, maximize = case
    front = [points[i] for i in non_dominated(points, maximize)]

    def distance(point: tuple[float, ...]) -> float:
        total = 0.0
        for j, up in enumerate(maximize):
            column = [p[j] for p in front]
            span = max(column) - min(column)
            if span:
                total += ((max(column) - point[j] if up else point[j] - min(column)) / span) ** 2
        return total

    assert distance(front[knee(front, maximize)]) <= min(map(distance, front)) + 1e-9
