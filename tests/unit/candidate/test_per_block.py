import pytest

from vitsearch.candidate.per_block import per_block


def test_one_figure_counts_for_every_block():
    assert per_block(3, 9, 4, "x") == (3, 3, 3, 3)
    assert per_block(None, 9, 4, "x") == (9, 9, 9, 9)
    assert per_block((1, 2, 3, 4), 9, 4, "x") == (1, 2, 3, 4)
    with pytest.raises(ValueError, match="x must have one figure per block, but got 2 for depth=4"):
        per_block((1, 2), 9, 4, "x")
