import pytest

from tests.unit.candidate.factory import micro
from vitsearch.config import EerSpec, ReferenceSpec
from vitsearch.cost import Cost, cost_of, eer_pct, num_macs, num_params, size_mb


def test_all_figures_at_once():
    candidate = micro(tokens={"reducer": "evit"}, precision={"weight_bits": 8, "activation_bits": 4})
    cost = cost_of(candidate)
    assert (cost.num_params, cost.num_macs, cost.size_mb) == (
        num_params(candidate),
        num_macs(candidate),
        size_mb(candidate),
    )
    assert (cost.weight_bits, cost.activation_bits, cost.bits) == pytest.approx((8, 4, 6))
    assert cost.tokens == tuple(candidate.tokens.token_counts(candidate.architecture))
    assert cost.kind == "exact"
    assert cost.eer_pct() == eer_pct(cost.eer_values())
    assert Cost.model_validate_json(cost.model_dump_json()) == cost


def test_an_eer_that_waits_for_a_measurement():
    spec = EerSpec(metrics=("macs", "latency"), reference=ReferenceSpec(latency_ms=2))
    cost = cost_of(micro())
    assert cost.eer_pct(spec) is None
    found = cost.eer_pct(spec, {"latency": 1.0})
    assert found == pytest.approx((100 * cost.num_macs / 17.6e9 + 50) / 2)


def test_spellings_cost_the_same():
    spelt = micro(tokens={"reducer": "tome", "r": 0}, precision={"weight_bits": [8] * 4})
    assert cost_of(spelt) == cost_of(spelt.canonical())
