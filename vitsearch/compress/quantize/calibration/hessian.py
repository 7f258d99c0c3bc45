"""Ranges chosen by what they change in the loss (PTQ4ViT, Yuan et al. 2022, Section 3.3).

For a layer with output O = X W^T, or a product O = A B, ranges minimise::

    sum over outputs of (dL/dO)^2 * (O_quantised - O)^2

where L is the cross-entropy with the class that the unquantised network finds most likely, and the squared
gradient stands for the diagonal of the Hessian. Each range is searched on a grid of shares of the one that covers
all values while its partner stays: W (channel by channel), then X; A, then B; for three rounds. Layers are
searched independently, on inputs of the unquantised network.

The published code feeds a gradient that is numerically zero: this one does not. A layer whose gradient vanishes on
every image is searched by the plain squared error.

Shape suffixes: R rows, I inputs, O outputs; K choices, P numbers of a range.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from vitsearch.compress.quantize.calibration.local import covering_range, settle_activations
from vitsearch.compress.quantize.capture import Rows, capture
from vitsearch.compress.quantize.codes import Codes, per_channel
from vitsearch.compress.quantize.layers import (
    ActivationQuantizer,
    QuantizedAttention,
    QuantizedProjection,
    covering_channels,
    quantized_weight,
)
from vitsearch.models import VisionTransformer

ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How thoroughly to search.

    Attributes:
        rows: Rows of each projection that are looked at; all when None.
        products: Products of one image and head that are looked at; all when None.
        low: Least share of the covering range.
        high: Largest.
        coarse: Shares between them, evenly spread.
        fine: Shares around the best of those, from one neighbour to the other; none at 0.
    """

    rows: int | None
    products: int | None
    low: float
    high: float
    coarse: int
    fine: int


FULL = Effort(rows=None, products=None, low=0.01, high=1.2, coarse=100, fine=0)
REDUCED = Effort(rows=1024, products=32, low=0.1, high=1.2, coarse=23, fine=9)

Part = tuple[Tensor, Callable[[Tensor], Tensor], Tensor, Tensor]  # inputs, what is made of them, exact, weights
Errors = Callable[[Tensor], Tensor]  # ranges (K, P, *S) to their errors (K, *S)


def hessian(model: VisionTransformer, batches: Sequence[Tensor]) -> None:
    """The search on sampled rows, from a coarse grid to a fine one."""
    search(model, batches, REDUCED)


def hessian_full(model: VisionTransformer, batches: Sequence[Tensor]) -> None:
    """The search as published: every row, 100 shares from 0.01 to 1.2."""
    search(model, batches, FULL)


def search(model: VisionTransformer, batches: Sequence[Tensor], effort: Effort) -> None:
    """Set every range of the network and quantise its weights."""
    settle_activations(covering_range, model, batches)
    layers = [m for m in model.modules() if isinstance(m, QuantizedProjection | QuantizedAttention)]
    # Everything at once where rows are few; layer by layer where they would fill the memory.
    groups = [layers] if effort.rows is not None else [[layer] for layer in layers]
    found: list[tuple[QuantizedProjection, Tensor | None]] = []
    for group in groups:
        watched = [module for layer in group for module in _watched(layer)]
        rows = capture(
            model, watched, batches, max_rows=effort.rows, max_products=effort.products, with_gradient=True
        )
        for layer in group:
            if isinstance(layer, QuantizedAttention):
                ours = layer.quantizer_of
                search_product(rows[layer.logits_product], ours("q"), ours("k"), effort)
                search_product(rows[layer.value_product], ours("softmax"), ours("v"), effort)
            else:
                found.append((layer, search_projection(rows[layer], layer, effort)))
    for projection, theta in found:
        projection.settle(theta)


def search_projection(rows: Rows, projection: QuantizedProjection, effort: Effort) -> Tensor | None:
    """Set the range of a projection's input; returns that of its weights (P, O), None where they have no codes."""
    if not rows.left:  # no image comes this way
        return None
    codes, quantizer = projection.codes, projection.input_quantizer
    x_RI, exact_RO, weight_RO = torch.cat(rows.left), torch.cat(rows.output), _squared(rows)
    layer, bits = projection.layer, projection.weight_bits
    w_OI = layer.weight.detach().flatten(1)
    if layer.bias is not None:
        exact_RO = exact_RO - layer.bias
    start = covering_channels(w_OI, bits, codes) if bits < 16 else None
    theta, x_quantised = start, _quantised(x_RI, quantizer)
    x_start = quantizer.theta.clone()
    for _ in range(ROUNDS):
        if start is not None:

            def weight_errors(ranges: Tensor, x: Tensor = x_quantised) -> Tensor:
                return torch.stack(
                    [
                        (x @ codes.quantize(w_OI, per_channel(one, w_OI), bits).T - exact_RO)
                        .square_()
                        .mul_(weight_RO)
                        .sum(dim=0)
                        for one in ranges
                    ]
                )

            theta = least(codes, start, bits, weight_errors, effort)
        w_quantised = quantized_weight(w_OI, bits, codes, theta)
        if quantizer.has_codes:
            _set_range(quantizer, [(x_RI, partial(_linear, w_quantised), exact_RO, weight_RO)], effort, x_start)
            x_quantised = _quantised(x_RI, quantizer)
    return theta


def search_product(rows: Rows, left: ActivationQuantizer, right: ActivationQuantizer, effort: Effort) -> None:
    """Set the ranges of both operands of a product."""
    if not rows.left or not left.has_codes:
        return
    # blocks that share an attention may see different numbers of tokens
    shaped = [_only(rows, shape) for shape in dict.fromkeys(one.shape[1:] for one in rows.output)]
    parts = [(torch.cat(r.left), torch.cat(r.right), torch.cat(r.output), _squared(r, rows)) for r in shaped]
    starts = {quantizer: quantizer.theta.clone() for quantizer in (left, right)}
    for _ in range(ROUNDS):
        for_a = [(a, partial(_times, _quantised(b, right)), exact, weight) for a, b, exact, weight in parts]
        _set_range(left, for_a, effort, starts[left])
        for_b = [(b, partial(torch.matmul, _quantised(a, left)), exact, weight) for a, b, exact, weight in parts]
        _set_range(right, for_b, effort, starts[right])


def least(codes: Codes, start: Tensor, bits: int, errors: Errors, effort: Effort) -> Tensor:
    """The range (P, *S) of least error among shares of ``start``, found separately for each of S."""
    spread = (-1, *[1] * (start.dim() - 1))
    shares = torch.linspace(effort.low, effort.high, effort.coarse, device=start.device).view(spread)
    shares = shares.expand(-1, *start.shape[1:])
    ranges = codes.choices(start, shares, bits)
    values = errors(ranges)
    if effort.fine and codes.continuous:
        gap = (effort.high - effort.low) / (effort.coarse - 1)
        around = torch.linspace(-gap, gap, effort.fine + 2, device=start.device)[1:-1].view(spread)
        finer = codes.choices(start, (_picked(shares, values) + around).clamp_min(gap / 10), bits)
        ranges, values = torch.cat([ranges, finer]), torch.cat([values, errors(finer)])
    index = values.argmin(dim=0)
    return ranges.gather(0, index.expand(1, *ranges.shape[1:])).squeeze(0)


def _set_range(quantizer: ActivationQuantizer, parts: Sequence[Part], effort: Effort, start: Tensor) -> None:
    codes, bits = quantizer.codes, quantizer.bits

    def error(theta: Tensor) -> Tensor:
        return torch.stack(
            [
                (compute(codes.quantize(x, theta, bits)) - exact).square_().mul_(weight).sum()
                for x, compute, exact, weight in parts
            ]
        ).sum()

    def errors(ranges: Tensor) -> Tensor:
        return torch.stack([error(one) for one in ranges])

    quantizer.settle(least(codes, start, bits, errors, effort))


def _linear(w_OI: Tensor, x_RI: Tensor) -> Tensor:
    return x_RI @ w_OI.T


def _times(b_GKM: Tensor, a_GNK: Tensor) -> Tensor:
    return a_GNK @ b_GKM


def _picked(choices: Tensor, values: Tensor) -> Tensor:
    """Of ``choices`` (K, *S), the one of least value (1, *S)."""
    return choices.gather(0, values.argmin(dim=0, keepdim=True))


def _quantised(x: Tensor, quantizer: ActivationQuantizer) -> Tensor:
    return quantizer.codes.quantize(x, quantizer.theta, quantizer.bits) if quantizer.has_codes else x


def _only(rows: Rows, shape: torch.Size) -> Rows:
    """Those of one shape of outputs."""
    chosen = [i for i, one in enumerate(rows.output) if one.shape[1:] == shape]
    return Rows(
        left=[rows.left[i] for i in chosen],
        right=[rows.right[i] for i in chosen],
        output=[rows.output[i] for i in chosen],
        gradient=[rows.gradient[i] for i in chosen] if rows.gradient else [],
    )


def _squared(rows: Rows, of: Rows | None = None) -> Tensor:
    """Squared gradients, scaled to a mean of 1 over ``of``, or these rows; ones where there are none."""
    exact = torch.cat(rows.output)
    if not rows.gradient:
        return torch.ones_like(exact)
    squared = torch.cat(rows.gradient).double().square()
    mean = torch.cat([one.flatten() for one in (of or rows).gradient]).double().square().mean()
    return (squared / mean).to(exact.dtype) if mean > 0 else torch.ones_like(exact)


def _watched(layer: QuantizedProjection | QuantizedAttention) -> tuple[nn.Module, ...]:
    return (layer.logits_product, layer.value_product) if isinstance(layer, QuantizedAttention) else (layer,)
