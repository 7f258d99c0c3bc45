"""Ternary and binary codes and powers of two, number by number, against float64 numpy written from the papers."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.compress.factory import candidate, network
from vitsearch.candidate import Precision
from vitsearch.compress import insert_quantizers
from vitsearch.compress.quantize import QuantizedProjection
from vitsearch.compress.quantize.auto_vit_acc import MixedRows
from vitsearch.compress.quantize.binary import Sign, SignOfWeights, build_binary
from vitsearch.compress.quantize.layers import covering_channels, quantized_weight
from vitsearch.compress.quantize.straight_through import fake_quantize
from vitsearch.compress.quantize.ternary import PerToken, Ternary
from vitsearch.compress.quantize.training import WeightRounding
from vitsearch.cost import cost_of

SHAPES = pytest.mark.parametrize("shape", [(5, 7), (3, 2, 3, 3)], ids=["linear", "convolution"])


def weights(shape: tuple[int, ...]) -> np.ndarray:
    random = np.random.default_rng(len(shape))
    return random.normal(size=shape) * random.uniform(0.1, 3, size=(shape[0], *[1] * (len(shape) - 1)))


@SHAPES
def test_ternary_weights_share_one_mean_magnitude(shape: tuple[int, ...]):
    w = weights(shape)
    gamma = sum(abs(v) for v in w.flatten()) / w.size
    expected = [min(max(np.rint(v / gamma), -1), 1) * gamma for v in w.flatten()]
    found = quantized_weight(torch.tensor(w), 2, Ternary()).numpy()
    np.testing.assert_allclose(found.flatten(), expected, rtol=1e-12)
    assert len(np.unique(found)) == 3


@SHAPES
def test_binary_weights_have_the_mean_magnitude_of_their_row(shape: tuple[int, ...]):
    w = weights(shape)
    w[1].flat[2] = 0.0
    expected = np.empty_like(w)
    for row in range(shape[0]):
        mean = sum(abs(v) for v in w[row].flatten()) / w[row].size
        expected[row] = np.where(w[row] < 0, -mean, mean)
    np.testing.assert_allclose(quantized_weight(torch.tensor(w), 1, SignOfWeights()), expected, rtol=1e-12)


@SHAPES
@pytest.mark.parametrize("bits", [3, 4, 6])
def test_the_even_half_of_the_rows_has_powers_of_two(bits: int, shape: tuple[int, ...]):
    w = weights(shape)
    w[0].flat[1] = 0.0
    variances = [np.mean((row - row.mean()) ** 2) for row in w]
    even = sorted(range(len(w)), key=lambda row: variances[row])[: round(len(w) / 2)]
    expected = np.empty_like(w)
    for (row, *rest), v in np.ndenumerate(w):
        s = max(abs(one) for one in w[row].flatten())
        if row in even:
            e = np.inf if v == 0 else np.rint(-np.log2(abs(v) / s))
            value = np.sign(v) * s * 2.0**-e if e <= 2 ** (bits - 1) - 2 else 0.0
        else:
            delta = s / (2 ** (bits - 1) - 1)
            value = np.rint(v / delta) * delta
        expected[(row, *rest)] = value
    np.testing.assert_allclose(quantized_weight(torch.tensor(w), bits, MixedRows()), expected, rtol=1e-12)


def test_only_the_mlp_has_powers_of_two():
    c = candidate(precision={"quantizer": "auto_vit_acc", "weight_bits": 4})
    model = insert_quantizers(network(c), c.precision)
    mixed = {n for n, m in model.named_modules() if isinstance(getattr(m, "codes", None), MixedRows)}
    assert mixed == {f"blocks.{block}.mlp.{layer}" for block in range(3) for layer in ("fc1", "fc2")}


@pytest.mark.parametrize("bits", [4, 5, 8])
def test_each_token_has_its_own_step(bits: int):
    x = np.random.default_rng(bits).normal(size=(3, 5, 7)) * np.array([0.01, 1, 100])[:, None, None]
    expected = np.empty_like(x)
    for image, token in np.ndindex(3, 5):
        delta = max(abs(v) for v in x[image, token]) / (2 ** (bits - 1) - 1)
        expected[image, token] = [np.rint(v / delta) * delta for v in x[image, token]]
    found = PerToken().quantize(torch.tensor(x), torch.ones(1, dtype=torch.float64), bits)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    torch.testing.assert_close(PerToken().quantize(found, torch.ones(1), bits), found, rtol=1e-9, atol=0)
    ordered = PerToken().quantize(torch.tensor(x).sort(dim=-1).values, torch.ones(1), bits)
    assert (ordered.diff(dim=-1) >= 0).all()


def test_signs_of_activations_and_where_their_gradient_passes():
    alpha = 0.7
    x = torch.tensor([[-2.0, -0.7, -0.1], [0.0, 0.69, 0.71]], dtype=torch.float64, requires_grad=True)
    found = fake_quantize(x, torch.tensor([alpha], dtype=torch.float64), 1, Sign())
    assert found.tolist() == [[-alpha, -alpha, -alpha], [alpha, alpha, alpha]]
    found.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0, 1, 1], [1, 1, 0]]
    attention = torch.tensor([0.0, 0.2, 0.3, 0.9], dtype=torch.float64)
    shares = build_binary().at("softmax").quantize(attention, torch.tensor([0.5], dtype=torch.float64), 1)
    assert shares.tolist() == [0, 0, 0.5, 0.5]


@pytest.mark.parametrize(("name", "bits"), [("ternary", 2), ("binary", 1)])
def test_training_measures_weights_anew_and_reaches_each_of_them(name: str, bits: int):
    torch.manual_seed(0)
    layer = nn.Linear(7, 5)
    projection = QuantizedProjection(layer, bits, 8, Precision(quantizer=name), "norm")
    codes = projection.quantizer.weight
    rounding = WeightRounding(layer, bits, codes, covering_channels(layer.weight, bits, codes), learned=False)
    moved = (layer.weight.detach() * 3).requires_grad_()
    rounded = rounding(moved)
    torch.testing.assert_close(rounded, quantized_weight(moved.detach(), bits, codes))
    rounded.sum().backward()
    assert moved.grad is not None
    assert (moved.grad == 1).all()


def test_bits_are_counted_as_stored():
    """Three values at two bits, two at one; the rest of the network at 32."""
    for name, bits in (("ternary", 2), ("binary", 1)):
        c = candidate(precision={"quantizer": name, "weight_bits": bits, "activation_bits": 8})
        assert cost_of(c).weight_bits == bits
        assert cost_of(c).bits == (bits + 8) / 2
    both = candidate(precision={"quantizer": "binary", "weight_bits": 1, "activation_bits": 1})
    assert cost_of(both).bits == 1


def test_one_bit_of_activations_is_for_binary_alone():
    with pytest.raises(ValueError, match="at least 4 under quantizer uniform, but got 1; choose quantizer binary"):
        Precision(activation_bits=(8, 1))


def test_other_widths_are_no_other_candidates():
    for name in ("ternary", "binary"):
        same = candidate(precision={"quantizer": name, "weight_bits": 4})
        assert same.canonical().precision.quantizer == "uniform"
        own = 2 if name == "ternary" else 1
        assert candidate(precision={"quantizer": name, "weight_bits": own}).canonical().precision.quantizer == name
