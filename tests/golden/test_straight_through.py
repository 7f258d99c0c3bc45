"""Gradients through codes, number by number, against float64 numpy written from the papers."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from vitsearch.compress.quantize.asymmetric import Asymmetric
from vitsearch.compress.quantize.codes import Codes
from vitsearch.compress.quantize.mpq import Unsigned
from vitsearch.compress.quantize.repq import LogSqrt2
from vitsearch.compress.quantize.straight_through import fake_quantize, scaled
from vitsearch.compress.quantize.twin import TwinGelu, TwinSoftmax
from vitsearch.compress.quantize.uniform import Uniform


def esser(v: float, s: float, q_n: int, q_p: int) -> tuple[float, float, float]:
    """v-hat, its derivative by v (Eq. 5) and by s (Eq. 3)."""
    if v / s <= -q_n:
        return -q_n * s, float(v / s == -q_n), float(-q_n)
    if v / s >= q_p:
        return q_p * s, float(v / s == q_p), float(q_p)
    return float(np.rint(v / s)) * s, 1.0, float(np.rint(v / s)) - v / s


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("unsigned", [False, True], ids=["signed", "unsigned"])
def test_lsq_of_an_activation(bits: int, unsigned: bool) -> None:
    random = np.random.default_rng(bits)
    x, upstream, s0, r = random.normal(size=(3, 5, 7)) * 2, random.normal(size=(3, 5, 7)), 0.31, 0.2
    q_n, q_p = (0, 2**bits - 1) if unsigned else (2 ** (bits - 1), 2 ** (bits - 1) - 1)
    s = s0 * np.exp(r)
    expected, expected_x, expected_s = np.empty_like(x), np.empty_like(x), 0.0
    for index, v in np.ndenumerate(x):
        expected[index], by_v, by_s = esser(float(v), s, q_n, q_p)
        expected_x[index] = by_v * upstream[index]
        expected_s += by_s * upstream[index]
    g = 1 / np.sqrt(5 * 7 * max(q_p, 1))
    x_t, r_t = torch.tensor(x, requires_grad=True), torch.tensor(r, dtype=torch.float64, requires_grad=True)
    theta = torch.tensor([s0], dtype=torch.float64)
    found = fake_quantize(x_t, theta, bits, Unsigned() if unsigned else Uniform(), r_t)
    found.backward(torch.tensor(upstream))
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-12)
    np.testing.assert_allclose(x_t.grad, expected_x, rtol=1e-12)
    assert r_t.grad is not None
    assert r_t.grad.item() == pytest.approx(g * s * expected_s, rel=1e-10), "dQ/dr = s dQ/ds"


def test_lsq_of_weights_has_a_step_for_each_channel() -> None:
    random = np.random.default_rng(0)
    w, upstream = random.normal(size=(3, 5, 2, 2)), random.normal(size=(3, 5, 2, 2))
    s0, r, bits = np.array([0.1, 0.3, 0.7]), np.array([0.0, -0.3, 0.4]), 3
    expected = np.zeros(3)
    for index, v in np.ndenumerate(w):
        s = s0[index[0]] * np.exp(r[index[0]])
        expected[index[0]] += esser(float(v), s, 4, 3)[2] * upstream[index] * s / np.sqrt(20 * 3)
    r_t = torch.tensor(r, requires_grad=True)
    fake_quantize(torch.tensor(w), torch.tensor(s0)[None], bits, Uniform(), r_t).backward(torch.tensor(upstream))
    np.testing.assert_allclose(r_t.grad, expected, rtol=1e-10)


def test_lsq_keeps_a_zero_point_and_is_the_slope_of_the_clamped_values() -> None:
    """Beyond the codes Q is linear in Delta, so the formula is the true derivative there."""
    theta = torch.tensor([0.2, 3.0], dtype=torch.float64)
    x = torch.tensor([[-5.0, 9.0, 7.0]], dtype=torch.float64)
    r = torch.zeros((), dtype=torch.float64, requires_grad=True)
    fake_quantize(x, theta, 4, Asymmetric(), r).sum().backward()
    assert r.grad is not None
    assert r.grad.item() == pytest.approx(0.2 * (-3 + 12 + 12) / np.sqrt(3 * 12))
    assert scaled(theta, torch.tensor(0.5))[1] == 3


GELU: Callable[[torch.Tensor], torch.Tensor] = torch.nn.functional.gelu
CASES: list[tuple[Codes, list[float], float, float]] = [
    (Uniform(), [0.5], -4.0, 3.5),
    (Asymmetric(), [0.5, 4.0], -2.0, 5.5),
    (Unsigned(), [0.1], 0.0, 1.5),
    (LogSqrt2(), [0.8], 0.0, 0.8),
    (TwinSoftmax(), [0.03125, 0.125], 0.0, 0.875),
    (TwinGelu(), [0.25], -0.16997, 1.75),
]


@pytest.mark.parametrize(("codes", "numbers", "low", "high"), CASES, ids=lambda v: type(v).__name__)
def test_ste_is_one_within_the_codes_and_zero_beyond(
    codes: Codes, numbers: list[float], low: float, high: float
) -> None:
    theta = torch.tensor(numbers, dtype=torch.float64)
    x = torch.linspace(-6, 7, 1301, dtype=torch.float64)
    if low == 0:
        x = x.abs()
    x = x.clone().requires_grad_()
    found = fake_quantize(x, theta, 4, codes)
    assert torch.equal(found, codes.quantize(x.detach(), theta, 4)), "the values are those of post-training codes"
    found.sum().backward()
    expected = [float(low <= v <= high) for v in x.tolist()]
    assert x.grad is not None
    assert x.grad.tolist() == expected
    extremes = codes.quantize(torch.tensor([low - 100 if low else 0.0, high + 100], dtype=x.dtype), theta, 4)
    assert [b.item() for b in codes.bounds(theta, 4)] == pytest.approx([low, high])
    if not isinstance(codes, LogSqrt2):  # zero has no code of its own there
        assert extremes.tolist() == pytest.approx([low, high])
