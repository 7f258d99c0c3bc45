"""Properties of the uniform quantiser."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from vitsearch.compress.quantize import channel_delta, layers, quantize
from vitsearch.compress.quantize.uniform import Uniform

BITS = st.integers(1, 8)


def quantized_weight(weight: torch.Tensor, bits: int) -> torch.Tensor:
    return layers.quantized_weight(weight, bits, Uniform())


ARRAYS = st_numpy.arrays(
    np.float32,
    st_numpy.array_shapes(min_dims=2, max_dims=3, max_side=8),
    elements=st.floats(-1e4, 1e4, width=32, allow_subnormal=False),
)
DELTAS = st.floats(1e-3, 1e3, allow_subnormal=False)


@given(ARRAYS, BITS, DELTAS)
def test_idempotent(x: np.ndarray, bits: int, delta: float):
    once = quantize(torch.from_numpy(x), torch.tensor(delta), bits)
    assert torch.equal(quantize(once, torch.tensor(delta), bits), once)


@given(ARRAYS, st.integers(2, 8))
def test_quantised_weights_are_their_own_quantisation(x: np.ndarray, bits: int):
    once = quantized_weight(torch.from_numpy(x), bits)
    torch.testing.assert_close(quantized_weight(once, bits), once, rtol=1e-5, atol=1e-30)


@given(ARRAYS, BITS, DELTAS)
def test_monotone(x: np.ndarray, bits: int, delta: float):
    ascending = torch.from_numpy(np.sort(x.ravel()))
    assert (quantize(ascending, torch.tensor(delta), bits).diff() >= 0).all()


@given(ARRAYS, BITS)
def test_weights_stay_within_their_range_and_half_a_step(x: np.ndarray, bits: int):
    weight = torch.from_numpy(x)
    delta = channel_delta(weight, bits)
    quantized = quantize(weight, delta, bits)
    largest = weight.abs().flatten(1).amax(1).view_as(delta)
    assert (quantized.abs() <= largest * (1 + 1e-6) + 1e-30).all()
    assert quantized.isfinite().all()
    if bits > 1:
        assert ((quantized - weight).abs() <= delta / 2 * (1 + 1e-4)).all()
    else:
        assert ((quantized - weight).abs() <= weight.abs() * (1 + 1e-6)).all()


@given(st.integers(0, 2**31 - 1))
@settings(deadline=None, max_examples=20)
def test_the_error_falls_with_every_bit(seed: int):
    weight = torch.randn(1, 10_000, generator=torch.Generator().manual_seed(seed))
    errors = [
        (quantized_weight(weight, bits) - weight).square().mean().item() for bits in (1, 2, 3, 4, 5, 6, 7, 8, 16)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] <= weight.square().mean().item()
    assert errors[7] < 1e-3 > errors[8]
    for more, less in itertools.pairwise(errors[2:8]):
        assert 2.5 < more / less < 7, "a bit halves the step, so quarters the error"


@given(ARRAYS)
def test_32_and_16_bits(x: np.ndarray):
    weight = torch.from_numpy(x)
    assert quantized_weight(weight, 32) is weight
    assert torch.equal(quantized_weight(weight, 16), torch.from_numpy(x.astype(np.float16).astype(np.float32)))


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_double_and_half_keep_their_dtype(bits: int):
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        assert quantized_weight(torch.randn(3, 4).to(dtype), bits).dtype == dtype
