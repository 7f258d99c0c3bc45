import pytest

from vitsearch.config import EerSpec, ReferenceSpec
from vitsearch.cost import DEFAULT_EER, eer_pct
from vitsearch.errors import InputError

HALF = {"params": 43.3e6, "macs": 8.8e9, "bits": 16.0, "size": 165.0}


def test_the_reference_scores_a_hundred():
    assert eer_pct({"params": 86.6e6, "macs": 17.6e9, "bits": 32, "size": 330}) == pytest.approx(100)
    assert eer_pct(HALF) == pytest.approx(50)


def test_the_mean_of_ratios_by_hand():
    # 10 %, 20 %, 25 %, 50 %
    values = {"params": 8.66e6, "macs": 3.52e9, "bits": 8, "size": 165}
    assert eer_pct(values) == pytest.approx((10 + 20 + 25 + 50) / 4)
    assert eer_pct(values, EerSpec(metrics=("macs", "bits"))) == pytest.approx(22.5)
    assert eer_pct(values, EerSpec(metrics=("macs",))) == pytest.approx(20)


def test_equal_weights_give_a_quarter():
    equal = EerSpec(weights=(0.25,) * 4)
    values = {"params": 8.66e6, "macs": 3.52e9, "bits": 8, "size": 165}
    assert eer_pct(values, equal) == pytest.approx(eer_pct(values) / 4)


def test_eq_28_by_hand():
    weighted = EerSpec(weights=(0.7, 0.1, 0.2, 0.0))
    values = {"params": 8.66e6, "macs": 3.52e9, "bits": 8, "size": 165}
    assert eer_pct(values, weighted) == pytest.approx((0.7 * 10 + 0.1 * 20 + 0.2 * 25) / 4)


def test_measured_metrics_have_units():
    spec = EerSpec(metrics=("latency", "memory"), reference=ReferenceSpec(latency_ms=10, memory_mb=100))
    assert eer_pct({"latency": 5, "memory": 10}, spec) == pytest.approx(30)


def test_another_reference():
    spec = EerSpec(metrics=("params",), reference=ReferenceSpec(params_m=1))
    assert eer_pct({"params": 3e6}, spec) == pytest.approx(300)


def test_a_missing_figure_is_an_error_not_a_guess():
    with pytest.raises(InputError, match=r"needs a value for \['size'\]"):
        eer_pct({k: v for k, v in HALF.items() if k != "size"})


def test_default_is_all_four():
    assert DEFAULT_EER.metrics == ("params", "macs", "bits", "size")
    assert DEFAULT_EER.weights is None
