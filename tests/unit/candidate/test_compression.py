import pytest

from tests.unit.candidate.factory import micro
from vitsearch.candidate import Precision, Sparsity
from vitsearch.candidate.compression import per_block

A = micro().architecture


def test_one_figure_counts_for_every_block():
    assert per_block(3, 9, 4, "x") == (3, 3, 3, 3)
    assert per_block(None, 9, 4, "x") == (9, 9, 9, 9)
    assert per_block((1, 2, 3, 4), 9, 4, "x") == (1, 2, 3, 4)
    with pytest.raises(ValueError, match="x must have one figure per block, but got 2 for depth=4"):
        per_block((1, 2), 9, 4, "x")


def test_half_pruned_settings_keep_the_other_open():
    full = Sparsity(method="magnitude", mlp_units=(64, 128, 128, 128), heads=4).resolved(A)
    assert full == Sparsity(method="magnitude", mlp_units=(64, 128, 128, 128), heads=None)
    assert full.heads_per_block(A) == (4, 4, 4, 4)


def test_calibration_stays_where_one_block_is_calibrated():
    one = Precision(activation_bits=(32, 32, 32, 8), calibration="mse")
    assert one.resolved(A).calibration == "mse"
    assert not one.is_float32
