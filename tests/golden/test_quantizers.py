"""Every quantiser beside Eq. 5, number by number, against float64 numpy written from the papers."""

import numpy as np
import pytest
import torch
from torch import nn

from vitsearch.candidate import Precision
from vitsearch.compress.quantize import QuantizedProjection
from vitsearch.compress.quantize.asymmetric import Asymmetric
from vitsearch.compress.quantize.mpq import Unsigned
from vitsearch.compress.quantize.noise import SHARES, pattern, remove_noise, set_noise
from vitsearch.compress.quantize.repq import LogSqrt2, fold
from vitsearch.compress.quantize.twin import TwinGelu, TwinSoftmax
from vitsearch.compress.quantize.uniform import Uniform

BITS = [4, 5, 6, 7, 8]


def softmax_values(seed: int = 0) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=(40, 30)) * 3
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def gelu_values(seed: int = 0) -> np.ndarray:
    x = torch.tensor(np.random.default_rng(seed).normal(size=3000) * 2)
    return nn.functional.gelu(x).numpy()


def limited(code: float, low: int, high: int) -> float:
    return min(max(float(np.rint(code)), low), high)


@pytest.mark.parametrize("bits", [1, 2, 3, *BITS])
def test_asymmetric(bits: int):
    x = np.random.default_rng(bits).normal(size=500) + 1.3
    low, high = min(x.min(), 0), max(x.max(), 0)
    delta = (high - low) / (2**bits - 1)
    zero = np.rint(-low / delta)
    expected = [delta * (min(max(np.rint(v / delta) + zero, 0), 2**bits - 1) - zero) for v in x]
    codes, values = Asymmetric(), torch.tensor(x)
    theta = codes.covering(values.min(), values.max(), bits)
    np.testing.assert_allclose(theta, [delta, zero], rtol=1e-12)
    np.testing.assert_allclose(codes.quantize(values, theta, bits), expected, rtol=1e-12)


@pytest.mark.parametrize("bits", BITS)
def test_mpq(bits: int):
    a = softmax_values()
    delta = a.max() / (2**bits - 1)
    expected = [delta * limited(v / delta, 0, 2**bits - 1) for v in a.flatten()]
    codes, values = Unsigned(), torch.tensor(a.flatten())
    theta = codes.covering(values.min(), values.max(), bits)
    np.testing.assert_allclose(codes.quantize(values, theta, bits), expected, rtol=1e-12)
    assert max(np.rint(np.array(expected) / delta)) == 2**bits - 1, "the sign bit is not wasted"


@pytest.mark.parametrize("bits", BITS)
def test_repq_softmax(bits: int):
    a = softmax_values()
    s = a.max()
    expected = []
    for v in a.flatten():
        code = limited(-np.log(v / s) / np.log(np.sqrt(2)), 0, 2**bits - 1)
        expected.append(s * np.sqrt(2) ** -code)
    codes, values = LogSqrt2(), torch.tensor(a.flatten())
    theta = codes.covering(values.min(), values.max(), bits)
    np.testing.assert_allclose(codes.quantize(values, theta, bits), expected, rtol=1e-12)
    smallest = codes.quantize(torch.zeros(1, dtype=torch.float64), theta, bits)
    assert smallest.item() == pytest.approx(s * 2 ** (-(2**bits - 1) / 2))


def test_repq_folds_a_norm():
    """Eq. 8-10: the pair computes the same, and each channel fills the one range that is left."""
    torch.manual_seed(0)
    norm, layer = nn.LayerNorm(6).double(), nn.Linear(6, 4).double()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.1, 1, 5, 20, 0.5, 2]))
        norm.bias.copy_(torch.tensor([0.0, 3, -4, 1, 0.2, -0.1]))
    x = torch.randn(2000, 6, dtype=torch.float64)
    gamma, beta = norm.weight.detach().numpy().copy(), norm.bias.detach().numpy().copy()
    weight, bias = layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy()
    before, outputs = layer(norm(x)), norm(x).detach()
    low, high = outputs.min(dim=0).values, outputs.max(dim=0).values
    fold([norm], [layer], low, high, 8)

    low, high = np.minimum(low.numpy(), 0), np.maximum(high.numpy(), 0)
    delta = (high - low) / 255
    zero = np.rint(-low / delta)
    ratio, shift = delta / delta.mean(), zero - np.rint(zero.mean())
    np.testing.assert_allclose(norm.weight.detach(), gamma / ratio, rtol=1e-10)
    np.testing.assert_allclose(norm.bias.detach(), (beta + delta * shift) / ratio, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(layer.weight.detach(), weight * ratio, rtol=1e-10)
    np.testing.assert_allclose(layer.bias.detach(), bias - weight @ (delta * shift), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(layer(norm(x)), before, rtol=1e-9, atol=1e-9)
    # Codes of the folded outputs in the one range are the codes of each channel in its own.
    own = np.rint(outputs.numpy() / delta) + zero
    shared = np.rint(norm(x).detach().numpy() / delta.mean()) + np.rint(zero.mean())
    assert np.abs(own - shared).max() <= 1  # a tie may go either way
    assert (own != shared).mean() < 1e-3


@pytest.mark.parametrize("bits", BITS)
def test_twin_softmax(bits: int):
    """Eq. 23: one range per value, chosen by where it falls."""
    codes, last = TwinSoftmax(), 2 ** (bits - 1) - 1
    values = torch.tensor(np.append(softmax_values().flatten(), [0.0, 1.0, 0.5, 0.25]))
    ranges = codes.choices(codes.covering(values.min(), values.max(), bits), torch.ones(1), bits)
    assert len(ranges) == bits
    for m, theta in enumerate(ranges):
        second = 1 / 2 ** (bits - 1)
        first = second / 2**m
        np.testing.assert_allclose(theta, [first, second], rtol=1e-12)
        expected = []
        for v in values.tolist():
            step = first if v < 2 ** (bits - 1) * first else second
            expected.append(step * limited(v / step, 0, last))
        np.testing.assert_allclose(codes.quantize(values, theta, bits), expected, rtol=1e-12)
        assert len(set(expected)) <= 2**bits


@pytest.mark.parametrize("bits", BITS)
def test_twin_gelu(bits: int):
    x = gelu_values()
    last = 2 ** (bits - 1) - 1
    first, second = 0.16997 / last, x.max() / last
    expected = [
        first * limited(v / first, -last, 0) if v < 0 else second * limited(v / second, 0, last) for v in x
    ]
    codes, values = TwinGelu(), torch.tensor(x)
    theta = codes.covering(values.min(), values.max(), bits)
    np.testing.assert_allclose(codes.quantize(values, theta, bits), expected, rtol=1e-12)
    assert len(set(np.round(expected, 12))) <= 2**bits
    # A single range of as many bits loses most of the negatives.
    one = Uniform().quantize(values, Uniform().covering(values.min(), values.max(), bits), bits)
    negative = x < 0
    assert np.square(np.array(expected) - x)[negative].mean() < np.square(one.numpy() - x)[negative].mean() / 4


def test_noisy():
    """W (Q(X + n) - n) + b with the noise of least output error, the subtraction inside the bias."""
    torch.manual_seed(3)
    layer = nn.Linear(8, 5).double()
    weight, bias = layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy()
    x = 0.45 + 0.02 * torch.randn(300, 8, dtype=torch.float64)  # nearly all on one side of a border between codes
    x[0, 0] = 7
    exact = layer(x).detach()
    quantized = QuantizedProjection(layer, 32, 4, Precision(noisy=True), "norm").double()
    delta = float(x.abs().max()) / 7
    quantized.input_quantizer.settle(torch.tensor([delta]))
    set_noise(quantized, 2, x, exact)

    def q(values: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(values / delta), -8, 7) * delta

    u = pattern(8, 2).double().numpy()
    assert np.abs(u).max() <= 1
    outputs = [(q(x.numpy() + s * delta * u) - s * delta * u) @ weight.T + bias for s in SHARES]
    errors = [np.square(output - exact.numpy()).mean() for output in outputs]
    best = int(np.argmin(errors))
    assert best > 0, "here noise helps"
    np.testing.assert_allclose(quantized(x).detach(), outputs[best], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(layer.bias.detach(), bias - weight @ (SHARES[best] * delta * u), rtol=1e-9)
    remove_noise(quantized)
    np.testing.assert_allclose(layer.bias.detach(), bias, rtol=1e-9)
    assert not quantized.input_quantizer.noise_D.any()
