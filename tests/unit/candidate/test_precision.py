from tests.unit.candidate.factory import micro
from vitsearch.candidate import Precision

A = micro().architecture


def test_calibration_stays_where_one_block_is_calibrated():
    one = Precision(activation_bits=(32, 32, 32, 8), calibration="mse")
    assert one.resolved(A).calibration == "mse"
    assert not one.is_float32
