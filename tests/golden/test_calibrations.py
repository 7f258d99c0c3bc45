"""Ranges found by the Hessian-guided search and block after block, against searches written out in numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.golden import reference
from vitsearch.candidate import Candidate
from vitsearch.compress import build_reducers, calibrate, insert_quantizers
from vitsearch.compress.quantize import QuantizedProjection
from vitsearch.compress.quantize.layers import ActivationQuantizer, QuantizedAttention, observing
from vitsearch.models import VisionTransformer, build_dense

BITS, ROUNDS = 4, 3
PREFIXES: dict[str, dict[str, Any]] = {
    "cls": {},
    "cls+dist": {"distilled": True},
    "no cls": {"class_token": False, "pool": "avg"},
}
Array = np.ndarray


def eq_5(x: Array, delta: float) -> Array:
    return np.clip(np.rint(x / delta), -(2 ** (BITS - 1)), 2 ** (BITS - 1) - 1) * delta


def covering(x: Array) -> float:
    return float(np.abs(x).max()) / (2 ** (BITS - 1) - 1)


def quantised(
    calibration: str, prefix: str, tokens: dict[str, Any] | None = None
) -> tuple[VisionTransformer, Tensor]:
    """A network of nine patches in float64, its quantisers not calibrated, and images."""
    a = {
        "image_size": 9, "in_chans": 1, "num_classes": 5, "patch_size": 3, "depth": 2, "width": 12, "heads": 3,
        "mlp_ratio": 1.5, **PREFIXES[prefix],
    }  # fmt: skip
    precision = {"weight_bits": BITS, "activation_bits": BITS, "calibration": calibration}
    c = Candidate.model_validate(
        {"architecture": a, "precision": precision, "tokens": tokens or {"reducer": "none"}}
    )
    torch.manual_seed(0)
    model = build_dense(c.architecture).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.set_reducers(build_reducers(c))
    insert_quantizers(model, c.canonical().precision)
    generator = torch.Generator().manual_seed(1)
    return model.double().eval(), torch.randn(3, 1, 9, 9, generator=generator).double()


def seen(model: VisionTransformer, module: nn.Module, images: Tensor) -> tuple[list[Array], Array, Array]:
    """Inputs and output of a module without quantisation, and the gradient of the loss with respect to it."""
    kept: dict[str, Any] = {}

    def watch(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        output.retain_grad()
        kept.update(inputs=inputs, output=output)

    handle = module.register_forward_hook(watch)
    with observing(model):
        logits = model(images)
        nn.functional.cross_entropy(logits, logits.argmax(dim=1), reduction="sum").backward()
    handle.remove()
    for quantizer in model.modules():
        if isinstance(quantizer, ActivationQuantizer):
            quantizer.settle()
    model.zero_grad()
    return (
        [x.detach().numpy() for x in kept["inputs"]],
        kept["output"].detach().numpy(),
        kept["output"].grad.numpy(),
    )


def best(choices: list[float], loss: Callable[[float], float]) -> float:
    return min(choices, key=loss)


def grid(start: float) -> list[float]:
    """A hundred shares from 0.01 to 1.2."""
    return [start * share for share in np.linspace(0.01, 1.2, 100)]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("name", ["blocks.0.mlp.fc1", "blocks.1.attn.proj", "head"])
def test_a_projection_by_the_hessian(prefix: str, name: str) -> None:
    """W channel by channel, then X, three times: sum of (dL/dO)^2 (change of O)^2."""
    model, images = quantised("hessian_full", prefix)
    projection = model.get_submodule(name)
    assert isinstance(projection, QuantizedProjection)
    (x,), output, gradient = seen(model, projection, images)
    w = projection.layer.weight.detach().numpy().copy()
    bias = projection.layer.bias.detach().numpy()
    x, exact, g = x.reshape(-1, x.shape[-1]), output.reshape(-1, len(w)) - bias, gradient.reshape(-1, len(w))
    start_x, starts_w = covering(x), [covering(row) for row in w]
    delta_x, deltas_w = start_x, list(starts_w)
    for _ in range(ROUNDS):
        xq = eq_5(x, delta_x)
        for o in range(len(w)):

            def change(delta: float, o: int = o, xq: Array = xq) -> float:
                return float((g[:, o] ** 2 * (xq @ eq_5(w[o], delta) - exact[:, o]) ** 2).sum())

            deltas_w[o] = best(grid(starts_w[o]), change)
        wq = np.stack([eq_5(row, delta) for row, delta in zip(w, deltas_w, strict=True)])
        delta_x = best(grid(start_x), lambda d, wq=wq: float((g**2 * (eq_5(x, d) @ wq.T - exact) ** 2).sum()))
    assert len({round(d / s, 3) for d, s in zip(deltas_w, starts_w, strict=True)}) > 1
    calibrate(model, [images])
    np.testing.assert_allclose(projection.input_quantizer.theta.numpy().ravel(), [delta_x], rtol=1e-4)
    np.testing.assert_allclose(projection.layer.weight.detach().numpy(), wq, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(("product", "operands"), [("logits_product", "qk"), ("value_product", ("softmax", "v"))])
def test_a_product_by_the_hessian(prefix: str, product: str, operands: tuple[str, str]) -> None:
    """A, then B, three times, one range for each operand."""
    model, images = quantised("hessian_full", prefix)
    attention = model.blocks[1].attn
    assert isinstance(attention, QuantizedAttention)
    (a, b), exact, g = seen(model, attention.get_submodule(product), images)
    start_a, start_b = covering(a), covering(b)
    delta_a, delta_b = start_a, start_b
    for _ in range(ROUNDS):
        bq = eq_5(b, delta_b)
        delta_a = best(grid(start_a), lambda d, bq=bq: float((g**2 * (eq_5(a, d) @ bq - exact) ** 2).sum()))
        aq = eq_5(a, delta_a)
        delta_b = best(grid(start_b), lambda d, aq=aq: float((g**2 * (aq @ eq_5(b, d) - exact) ** 2).sum()))
    calibrate(model, [images])
    found = [float(attention.quantizer_of(operand).theta) for operand in operands]  # type: ignore[arg-type]
    np.testing.assert_allclose(found, [delta_a, delta_b], rtol=1e-4)


QUANTIZERS = {
    "norm1": "attn.qkv.input_quantizer", "q": "attn.quantizers.q", "k": "attn.quantizers.k",
    "v": "attn.quantizers.v", "softmax": "attn.quantizers.softmax", "joined": "attn.proj.input_quantizer",
    "norm2": "mlp.fc1.input_quantizer", "gelu": "mlp.fc2.input_quantizer",
}  # fmt: skip
"""Those of a block, in the order of computing."""


def run_block(
    w: dict[str, Array], x: Array, heads: int, *, rounded: bool, deltas: dict[str, float], inside: dict[str, Array]
) -> Array:
    """One block on tokens (B, N, D); what has a step in ``deltas`` is rounded; ``inside`` has it before."""

    def q(name: str, value: Array) -> Array:
        inside[name] = value
        return eq_5(value, deltas[name]) if name in deltas else value

    def linear(name: str, value: Array) -> Array:
        weight = w[f"{name}.layer.weight"]
        if rounded:
            weight = np.stack([eq_5(row, covering(row)) for row in weight])
        return value @ weight.T + w[f"{name}.layer.bias"]

    def norm(name: str, value: Array) -> Array:
        rows = reference.layer_norm(value.reshape(-1, value.shape[-1]), w[f"{name}.weight"], w[f"{name}.bias"])
        return rows.reshape(value.shape)

    B, N, D = x.shape
    qkv = linear("attn.qkv", q("norm1", norm("norm1", x))).reshape(B, N, 3, heads, D // heads)
    queries, keys, values = (q(name, qkv[:, :, i].transpose(0, 2, 1, 3)) for i, name in enumerate("qkv"))
    logits = queries @ keys.transpose(0, 1, 3, 2) / np.sqrt(D // heads)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    weights = q("softmax", weights / weights.sum(axis=-1, keepdims=True))
    x = x + linear("attn.proj", q("joined", (weights @ values).transpose(0, 2, 1, 3).reshape(B, N, D)))
    return x + linear("mlp.fc2", q("gelu", reference.gelu(linear("mlp.fc1", q("norm2", norm("norm2", x))))))


@pytest.mark.parametrize("prefix", PREFIXES)
@torch.no_grad()
def test_block_after_block(prefix: str) -> None:
    """Each range in the order of computing: that of least squared error, or five shares of the covering one."""
    model, images = quantised("blockwise", prefix)
    w = [{name: value.numpy().copy() for name, value in block.state_dict().items()} for block in model.blocks]
    with observing(model):
        exact = model.entering(images).x_BND.numpy()
    calibrate(model, [images])
    found = [{n: float(block.get_submodule(at).delta) for n, at in QUANTIZERS.items()} for block in model.blocks]
    with observing(model):
        unrounded = model.entering(images).x_BND.numpy()  # of rounded weights
    found_after = [
        {n: float(block.get_submodule(at).delta) for n, at in QUANTIZERS.items()} for block in model.blocks
    ]
    assert found == found_after
    x, heads, moved = model.entering(images).x_BND.numpy(), model.architecture.heads, 0
    for b in range(2):
        inside: dict[str, Array] = {}
        exact = run_block(w[b], exact, heads, rounded=False, deltas={}, inside={})
        unrounded = run_block(w[b], unrounded, heads, rounded=True, deltas={}, inside=inside)
        deltas = {n: least_squares(inside[n]) for n in QUANTIZERS}
        run_block(w[b], x, heads, rounded=True, deltas={}, inside=inside)
        for name in QUANTIZERS:
            shares = [covering(inside[name]) * share for share in np.linspace(0.4, 1.0, 5)]

            def distance(delta: float, b: int = b, name: str = name, x: Array = x, exact: Array = exact) -> float:
                y = run_block(w[b], x, heads, rounded=True, deltas={**deltas, name: delta}, inside={})  # noqa: B023
                return float(((y - exact) ** 2).mean())

            chosen = best([deltas[name], *shares], distance)
            moved += chosen != deltas[name]
            deltas[name] = chosen
        assert found[b] == pytest.approx(deltas, rel=1e-4)
        x = run_block(w[b], x, heads, rounded=True, deltas=deltas, inside={})
    assert moved > 0


def least_squares(x: Array) -> float:
    return best(
        [covering(x) * share for share in np.linspace(0.25, 1.0, 40)], lambda d: ((eq_5(x, d) - x) ** 2).mean()
    )


@pytest.mark.parametrize("outliers", [0, 1])
@torch.no_grad()
def test_the_999th_of_a_thousand_magnitudes(outliers: int) -> None:
    from vitsearch.compress.quantize.calibration.local import percentile_range
    from vitsearch.compress.quantize.uniform import Uniform

    values = np.random.default_rng(0).normal(size=1000)
    values[:outliers] = -1e6
    limit = sorted(np.abs(values))[998]
    found = percentile_range(torch.tensor(values), BITS, Uniform())
    assert float(found) == pytest.approx(limit / (2 ** (BITS - 1) - 1), rel=1e-6)
