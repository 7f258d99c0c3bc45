import numpy as np
import pytest

from vitsearch.pareto import hypervolume, knee, non_dominated, reference_point

ACCURACY_AND_EER = (True, False)


def test_front_by_hand():
    points = [(0.9, 10.0), (0.8, 5.0), (0.85, 12.0), (0.8, 6.0), (0.7, 5.0), (0.95, 30.0)]
    assert non_dominated(points, ACCURACY_AND_EER) == [0, 1, 5]


def test_directions_matter():
    points = [(1.0, 1.0), (2.0, 2.0)]
    assert non_dominated(points, (True, True)) == [1]
    assert non_dominated(points, (False, False)) == [0]
    assert non_dominated(points, (True, False)) == [0, 1]


def test_the_first_of_equal_points_stays():
    assert non_dominated([(1, 1), (0, 5), (1, 1), (1, 1)], ACCURACY_AND_EER) == [0]
    assert non_dominated([(0, 0), (1, 1), (0, 0)], (True, False)) == [0, 1]


def test_no_points_and_one_point():
    assert non_dominated([], ACCURACY_AND_EER) == []
    assert non_dominated([(0.5, 3)], ACCURACY_AND_EER) == [0]


def test_the_caller_keeps_its_points():
    points = np.array([[0.9, 10.0], [0.8, 20.0]])
    before = points.copy()
    non_dominated(points, ACCURACY_AND_EER)  # type: ignore[arg-type]
    hypervolume(points, ACCURACY_AND_EER, (0, 100))  # type: ignore[arg-type]
    knee(points, ACCURACY_AND_EER)  # type: ignore[arg-type]
    assert (points == before).all()


@pytest.mark.parametrize("nan", [(float("nan"), 1.0), (1.0, float("nan"))])
def test_nan_is_refused(nan: tuple[float, float]):
    points = [(1.0, 2.0), nan]
    for call in (
        lambda: non_dominated(points, ACCURACY_AND_EER),
        lambda: hypervolume(points, ACCURACY_AND_EER, (0, 10)),
        lambda: knee(points, ACCURACY_AND_EER),
        lambda: reference_point(points, ACCURACY_AND_EER),
    ):
        with pytest.raises(ValueError, match="must not hold NaN"):
            call()


def test_points_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"shape \(n, 2\), but got \(2, 3\)"):
        non_dominated([(1, 2, 3), (4, 5, 6)], ACCURACY_AND_EER)


def test_hypervolume_by_hand():
    # a staircase over (0, 10): 0.5 x 8 for the cheap one, and 0.4 more accuracy x 5 for the better one
    assert hypervolume([(0.5, 2), (0.9, 5)], ACCURACY_AND_EER, (0, 10)) == pytest.approx(0.5 * 8 + 0.4 * 5)
    assert hypervolume([(0.5, 2)], ACCURACY_AND_EER, (0, 10)) == pytest.approx(4)
    assert hypervolume([(3, 4)], (True, True), (1, 1)) == pytest.approx(6)
    assert hypervolume([(3, 4)], (False, False), (5, 5)) == pytest.approx(2)
    # two boxes of 2 x 1 x 3 and 1 x 2 x 3 share 1 x 1 x 3
    assert hypervolume([(2, 1, 0), (1, 2, 0)], (True, True, False), (0, 0, 3)) == pytest.approx(6 + 6 - 3)


def test_dominated_duplicate_and_outside_points_add_nothing():
    base = hypervolume([(0.5, 2)], ACCURACY_AND_EER, (0, 10))
    assert hypervolume([(0.5, 2), (0.5, 2), (0.4, 3)], ACCURACY_AND_EER, (0, 10)) == pytest.approx(base)
    assert hypervolume([(0.5, 2), (0.9, 10), (0.9, 11), (0, 1)], ACCURACY_AND_EER, (0, 10)) == pytest.approx(base)
    assert hypervolume([(0.5, 11)], ACCURACY_AND_EER, (0, 10)) == 0
    assert hypervolume([], ACCURACY_AND_EER, (0, 10)) == 0


def test_the_reference_point_lies_outside_the_worst():
    reference = reference_point([(0.5, 2), (0.9, 12)], ACCURACY_AND_EER)
    assert reference == pytest.approx([0.5 - 0.04, 12 + 1])
    assert reference_point([(0.5, 2)], ACCURACY_AND_EER) == pytest.approx([0.5 - 0.1, 2 + 0.2])
    with pytest.raises(ValueError, match="at least one point"):
        reference_point([], ACCURACY_AND_EER)


def test_every_front_point_counts_towards_the_volume():
    points = [(0.5, 2), (0.7, 4), (0.9, 12)]
    reference = reference_point(points, ACCURACY_AND_EER)
    whole = hypervolume(points, ACCURACY_AND_EER, reference)
    for i in range(3):
        assert hypervolume(points[:i] + points[i + 1 :], ACCURACY_AND_EER, reference) < whole


def test_the_knee_is_nearest_to_the_ideal():
    # scaled to (0 best): (1, 0), (0.125, 0.2), (0, 1)
    assert knee([(0.5, 2), (0.85, 4), (0.9, 12)], ACCURACY_AND_EER) == 1
    # the same with the trade turned round: (1, 0), (0.875, 0.2), (0, 1)
    assert knee([(0.5, 2), (0.55, 4), (0.9, 12)], ACCURACY_AND_EER) == 1
    assert knee([(0.9, 1), (0.5, 2), (0.1, 3)], (True, False)) == 0
    assert knee([(0, 0), (1, 1), (0.6, 0.6)], (False, True)) == 2


def test_the_knee_ignores_the_scale():
    points = [(0.5, 2.0), (0.85, 4.0), (0.9, 12.0)]
    assert knee([(a * 100, e * 1e6) for a, e in points], ACCURACY_AND_EER) == knee(points, ACCURACY_AND_EER)


def test_knees_of_degenerate_fronts():
    assert knee([(0.5, 3)], ACCURACY_AND_EER) == 0
    assert knee([(0.5, 3), (0.5, 3)], ACCURACY_AND_EER) == 0
    assert knee([(0.5, 3), (0.5, 2)], ACCURACY_AND_EER) == 1
    with pytest.raises(ValueError, match="at least one point"):
        knee([], ACCURACY_AND_EER)
