"""Eq. 5 of the survey, number by number."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from vitsearch.candidate import Precision
from vitsearch.compress.quantize import QuantizedProjection, channel_delta, quantize
from vitsearch.compress.quantize.calibration.local import covering_range
from vitsearch.compress.quantize.uniform import Uniform

BITS = [1, 2, 3, 4, 5, 6, 7, 8]


def eq_5(x: float, delta: float, k: int) -> float:
    code = np.rint(x / delta)  # half to even, as torch rounds
    return float(min(max(code, -(2 ** (k - 1))), 2 ** (k - 1) - 1) * delta)


@pytest.mark.parametrize("bits", BITS)
def test_every_value_of_a_grid(bits: int):
    delta = 0.37
    x = np.arange(-400.0, 400.0, 0.25) * delta / 2
    expected = [eq_5(value, delta, bits) for value in x]
    found = quantize(torch.tensor(x), torch.tensor(delta, dtype=torch.float64), bits)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert len(set(found.div(delta).round().tolist())) == 2**bits


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("shape", [(5, 7), (3, 2, 4, 4)], ids=["linear", "convolution"])
def test_weights_have_a_step_for_each_output_channel(bits: int, shape: tuple[int, ...]):
    generator = np.random.default_rng(bits)
    scales = generator.uniform(0.01, 100, size=(shape[0], *[1] * (len(shape) - 1)))
    weight = generator.normal(size=shape) * scales
    expected = np.empty(shape)
    for channel in range(shape[0]):
        largest = max(abs(value) for value in weight[channel].flatten())
        delta = largest / max(1, 2 ** (bits - 1) - 1)
        expected[channel] = np.vectorize(lambda v, d=delta: eq_5(v, d, bits))(weight[channel])
    found = quantize(torch.tensor(weight), channel_delta(torch.tensor(weight), bits), bits)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_largest_magnitude_stands_on_the_last_code(bits: int):
    weight = torch.tensor([[0.5, -2.0, 1.0], [3.0, -1.0, 0.0]])
    delta = channel_delta(weight, bits)
    assert (delta.flatten() * (2 ** (bits - 1) - 1)).tolist() == pytest.approx([2.0, 3.0])
    assert quantize(weight, delta, bits)[1, 0].item() == pytest.approx(3.0)


def test_one_bit_is_bounded():
    """Codes -1 and 0 with Delta = max: nothing blows up, and no value moves further than to zero."""
    weight = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    quantized = quantize(weight, channel_delta(weight, 1), 1)
    largest = weight.abs().amax(dim=1, keepdim=True)
    assert ((quantized == 0) | (quantized == -largest)).all()
    assert ((quantized - weight).abs() <= weight.abs()).all()


def test_a_projection_is_a_product_of_quantised_operands():
    torch.manual_seed(0)
    layer = nn.Linear(6, 4)
    weight, bias = layer.weight.detach().double().numpy().copy(), layer.bias.detach().double().numpy().copy()
    quantized = QuantizedProjection(layer, 3, 4, Precision(), "norm")
    quantized.settle()
    x = torch.randn(5, 6)
    quantizer = quantized.input_quantizer
    quantizer.observe()
    quantized(x)
    quantizer.settle(covering_range(quantizer.observed(), 4, Uniform()))
    step_x = float(x.abs().max()) / 7
    expected = np.empty((5, 4))
    for i in range(5):
        for j in range(4):
            step_w = max(abs(v) for v in weight[j]) / 3
            total = bias[j]
            for k in range(6):
                total += eq_5(float(x[i, k]), step_x, 4) * eq_5(weight[j, k], step_w, 3)
            expected[i, j] = total
    np.testing.assert_allclose(quantized(x).detach().numpy(), expected, rtol=1e-5, atol=1e-5)
    assert math.isclose(float(quantizer.delta), step_x, rel_tol=1e-6)
