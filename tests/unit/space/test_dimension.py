import pytest

from vitsearch.config import DimensionSpec
from vitsearch.space import Dimension
from vitsearch.space.dimension import expand


def axis(**spec: object) -> Dimension:
    (one,) = expand("tokens.r", DimensionSpec.model_validate(spec), 3)
    return one


def test_integers_step_by_one_unless_told():
    assert axis(low=1, high=4).values() == (1, 2, 3, 4)
    assert axis(low=1, high=6, step=2).values() == (1, 3, 5)
    assert all(type(v) is int for v in axis(low=1, high=6, step=2).values())
    assert axis(low=1, high=6, step=2).cardinality == 3
    assert axis(low=2, high=8, log=True).cardinality == 7


def test_floats_are_a_continuum_unless_stepped():
    assert axis(low=0.0, high=1.0).cardinality is None
    assert axis(low=0.0, high=1.0).values() == (0.0, 1.0)
    assert axis(low=0.5, high=0.9, step=0.1).cardinality == 5  # 0.4 / 0.1 is a little less than 4
    assert axis(low=0.5, high=0.9, step=0.1).values() == pytest.approx((0.5, 0.6, 0.7, 0.8, 0.9))


def test_categories():
    one = axis(choices=[1, "a"])
    assert (one.kind, one.cardinality, one.values()) == ("categorical", 2, (1, "a"))
    assert one.contains("a")
    assert not one.contains("b")


def test_contains_a_range():
    one = axis(low=1, high=4)
    assert [one.contains(v) for v in (0, 1, 4, 5, "1")] == [False, True, True, False, False]


def test_per_block_counts_from_one():
    axes = expand("precision.weight_bits", DimensionSpec(choices=(4, 8), per_block=True), 2)
    assert [(a.name, a.field, a.block) for a in axes] == [
        ("precision.weight_bits[1]", "precision.weight_bits", 1),
        ("precision.weight_bits[2]", "precision.weight_bits", 2),
    ]


def test_conditions_become_tuples():
    one = axis(low=1, high=2, when={"a": "x", "b": ["y", "z"]})
    assert one.when == (("a", ("x",)), ("b", ("y", "z")))
