from tests.unit.candidate.factory import micro
from vitsearch.candidate import Sparsity

A = micro().architecture


def test_half_pruned_settings_keep_the_other_open():
    full = Sparsity(method="magnitude", mlp_units=(64, 128, 128, 128), heads=4).resolved(A)
    assert full == Sparsity(method="magnitude", mlp_units=(64, 128, 128, 128), heads=None)
    assert full.heads_per_block(A) == (4, 4, 4, 4)
