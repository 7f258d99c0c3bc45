import pytest

from tests.unit.candidate.factory import micro
from vitsearch.candidate import Precision

A = micro().architecture


def test_calibration_stays_where_one_block_is_calibrated():
    one = Precision(activation_bits=(32, 32, 32, 8), calibration="mse")
    assert one.resolved(A).calibration == "mse"
    assert not one.is_float32


def test_shared_weights_have_one_width():
    shared = A.model_copy(update={"share_blocks": 2})
    one = Precision(weight_bits=(4, 4, 8, 8)[: A.depth], activation_bits=8)
    assert one.resolved(shared).weight_bits == (4, 4, 8, 8)
    for bits in ({"weight_bits": (4, 8, 8, 8)}, {"activation_bits": (4, 4, 8, 4)}):
        with pytest.raises(ValueError, match=r"must be the same .* set architecture.share_blocks=1"):
            Precision.model_validate(bits).resolved(shared)
