"""Properties of every rule that maps values to codes."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from vitsearch.compress.quantize.asymmetric import Asymmetric
from vitsearch.compress.quantize.auto_vit_acc import MixedRows
from vitsearch.compress.quantize.binary import Sign
from vitsearch.compress.quantize.codes import QUANTIZERS, Codes
from vitsearch.compress.quantize.layers import quantized_weight
from vitsearch.compress.quantize.mpq import Unsigned
from vitsearch.compress.quantize.repq import LogSqrt2
from vitsearch.compress.quantize.ternary import PerToken, Ternary
from vitsearch.compress.quantize.twin import TwinGelu, TwinSoftmax
from vitsearch.compress.quantize.uniform import Uniform

SIGNED: list[Codes] = [Uniform(), Asymmetric(), Sign(), Ternary(), PerToken()]
SHARES = [Unsigned(), LogSqrt2(), TwinSoftmax()]
ALL = pytest.mark.parametrize("codes", [*SIGNED, *SHARES, TwinGelu()], ids=lambda codes: type(codes).__name__)
BITS = st.integers(4, 8)
VALUES = st_numpy.arrays(
    np.float32,
    st.integers(1, 60),
    elements=st.floats(-1e4, 1e4, width=32, allow_subnormal=False),
)


def values_for(codes: Codes, x: np.ndarray) -> torch.Tensor:
    """What the codes are made for: anything, shares of one, or outputs of GELU."""
    values = torch.from_numpy(x)
    if codes in SHARES:
        return values.abs() / 1e4
    return torch.nn.functional.gelu(values) if isinstance(codes, TwinGelu) else values


@ALL
@given(x=VALUES, bits=BITS, index=st.integers(0, 7))
def test_idempotent_monotone_and_within_2_to_the_bits_codes(codes: Codes, x: np.ndarray, bits: int, index: int):
    values = values_for(codes, x).sort().values
    ranges = codes.choices(codes.covering(values[0], values[-1], bits), torch.linspace(0.3, 1.2, 8), bits)
    theta = ranges[index % len(ranges)]
    once = codes.quantize(values, theta, bits)
    assert once.isfinite().all()
    assert (once.diff() >= 0).all()
    torch.testing.assert_close(codes.quantize(once, theta, bits), once, rtol=1e-6, atol=0)
    assert len(once.unique()) <= 2**bits
    assert codes.step(theta, bits) > 0


@pytest.mark.parametrize(("codes", "bits"), [(Sign(), 1), (Unsigned(), 1), (Ternary(), 2)], ids=["1", "1u", "2"])
@given(x=VALUES, theta=st.floats(0.01, 1e3))
def test_few_bits_are_idempotent_and_monotone(codes: Codes, bits: int, x: np.ndarray, theta: float):
    values = values_for(codes, x).sort().values
    once = codes.quantize(values, torch.tensor([theta]), bits)
    assert (once.diff() >= 0).all()
    torch.testing.assert_close(codes.quantize(once, torch.tensor([theta]), bits), once, rtol=1e-6, atol=0)
    assert len(once.unique()) <= 2**bits


@ALL
@pytest.mark.parametrize("seed", range(3))
def test_the_error_falls_with_every_bit(codes: Codes, seed: int):
    gaussian = torch.randn(10_000, generator=torch.Generator().manual_seed(seed))
    values = values_for(codes, gaussian.numpy())
    if codes in SHARES:
        values = gaussian.exp() / gaussian.exp().max()
    errors = []
    for bits in (4, 5, 6, 7, 8):
        ranges = codes.choices(codes.covering(values.min(), values.max(), bits), torch.linspace(0.25, 1, 40), bits)
        found = [(codes.quantize(values, theta, bits) - values).square().mean().item() for theta in ranges]
        errors.append(min(found))
    if isinstance(codes, LogSqrt2):  # more bits reach further down; neighbouring codes stay sqrt(2) apart
        assert all(more >= less * 0.999 for more, less in itertools.pairwise(errors))
    else:
        assert all(more > 2 * less for more, less in itertools.pairwise(errors))


@given(x=VALUES, bits=st.integers(3, 8), largest=st.floats(0.01, 1e4))
def test_powers_of_two_are_idempotent_and_monotone(x: np.ndarray, bits: int, largest: float):
    theta = torch.tensor([largest / (2 ** (bits - 1) - 1), 1])
    values = torch.from_numpy(x).sort().values
    once = MixedRows().quantize(values, theta, bits)
    assert (once.diff() >= 0).all()
    torch.testing.assert_close(MixedRows().quantize(once, theta, bits), once, rtol=1e-6, atol=0)
    assert len(once.unique()) < 2**bits


@pytest.mark.parametrize("name", QUANTIZERS)
def test_32_bits_are_the_identity_and_weights_improve_with_bits(name: str):
    codes = QUANTIZERS[name]().weight
    weight = torch.randn(4, 2500, generator=torch.Generator().manual_seed(0))
    assert quantized_weight(weight, 32, codes) is weight
    assert torch.equal(quantized_weight(weight, 16, codes), weight.half().float())
    errors = [(quantized_weight(weight, b, codes) - weight).square().mean() for b in (1, 2, 3, 4, 5, 6, 7, 8, 16)]
    if name == "binary":  # one bit scaled by the mean beats two, of which the largest weight takes most
        assert errors.pop(0) < errors[0]
    assert all(more > less for more, less in itertools.pairwise(errors))
    assert errors[0] <= weight.square().mean() * 2
