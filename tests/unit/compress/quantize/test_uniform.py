import pytest
import torch

from vitsearch.compress.quantize.calibration.local import covering_range, mse_range, percentile_range
from vitsearch.compress.quantize.layers import spread_sample
from vitsearch.compress.quantize.uniform import Uniform, channel_delta, delta_of_range, quantize

RULES = {"minmax": covering_range, "percentile": percentile_range, "mse": mse_range}


def observed_delta(x: torch.Tensor, bits: int, calibration: str) -> torch.Tensor:
    return RULES[calibration](x, bits, Uniform())[0]


def values() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(100, 100, generator=generator)


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_minmax_covers_the_largest_magnitude(bits: int):
    x = values()
    x[3, 3] = -40.0
    assert observed_delta(x, bits, "minmax").item() == pytest.approx(40 / (2 ** (bits - 1) - 1))


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_percentile_leaves_one_value_in_a_thousand_out(bits: int):
    x = values()
    x[0, :9] = 1000.0  # 9 of 10,000
    expected = x.abs().flatten().sort().values[9_990 - 1].item()
    assert expected < 10
    assert observed_delta(x, bits, "percentile").item() == pytest.approx(expected / (2 ** (bits - 1) - 1))


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_mse_takes_the_step_with_the_least_error(bits: int):
    x = values()
    x[5, 5] = 12.0
    found = observed_delta(x, bits, "mse")
    last = 2 ** (bits - 1) - 1
    grid = [12.0 * share / last for share in torch.linspace(0.25, 1, 40).tolist()]
    errors = [(quantize(x, torch.tensor(d), bits) - x).square().mean().item() for d in grid]
    assert found.item() == pytest.approx(grid[errors.index(min(errors))])
    assert bits == 8 or found < observed_delta(x, bits, "minmax")


@pytest.mark.parametrize("calibration", ["minmax", "percentile", "mse"])
@pytest.mark.parametrize("x", [torch.zeros(7), torch.tensor([3.0]), torch.tensor([-1e-30, 1e-30])], ids=str)
def test_degenerate_values_give_a_positive_finite_step(x: torch.Tensor, calibration: str):
    delta = observed_delta(x, 4, calibration)
    assert delta > 0
    assert quantize(x, delta, 4).isfinite().all()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_channel_of_zeros_stays_zero(bits: int):
    weight = torch.stack([torch.zeros(4), torch.ones(4)])
    quantized = quantize(weight, channel_delta(weight, bits), bits)
    assert torch.equal(quantized[0], torch.zeros(4))
    assert quantized.isfinite().all()


def test_the_step_at_one_bit_is_the_range():
    assert delta_of_range(torch.tensor(3.0), 1).item() == delta_of_range(torch.tensor(3.0), 2).item() == 3.0


@pytest.mark.parametrize("shape", [(128, 64), (64, 96), (7, 13), (1000, 1), (12, 8, 32)])
@pytest.mark.parametrize("count", [1, 16, 100, 2048])
def test_a_sample_looks_at_every_channel(shape: tuple[int, ...], count: int):
    x = torch.arange(shape[-1]).expand(shape).flatten()
    sample = spread_sample(x, count)
    assert len(sample) <= 2 * count + 1
    assert len(sample.unique()) >= min(shape[-1], len(sample), max(1, min(count, len(x)) // 2))


def test_mse_sees_a_wide_channel_among_narrow_ones():
    """32 channels and a stride of 32 would look at one channel only."""
    x = torch.randn(16_384, 32, generator=torch.Generator().manual_seed(0)) * 0.01
    x[:, 1::2] *= 100
    assert observed_delta(x, 8, "mse") > 0.01
