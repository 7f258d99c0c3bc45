"""Gradients through codes: straight through in a given range, or with the step learned (LSQ).

Rounding has no useful gradient. For any codes Q with a step Delta, a least result l and a largest u, the gradient
that training uses is (Bengio et al. 2013)::

    dQ/dx = 1 if l <= x <= u else 0

and, where Delta is learned (Esser et al., Learned Step Size Quantization, 2020, Eq. 3)::

    dQ/dDelta = (Q(x) - x) / Delta    if l <= x <= u        (round(x / Delta) - x / Delta for codes of Eq. 5)
                Q(x) / Delta          otherwise             (-Q_N or Q_P)

scaled by g = 1 / sqrt(N Q_P), with Q_P = u / Delta and N the weights that share the step, or the values of one
image that share it (Section 2.2). The paper learns Delta by SGD; here the optimiser is the recipe's, often Adam,
whose steps do not shrink with Delta. So what is learned is r in Delta = Delta_0 e^r, with dQ/dr = Delta dQ/dDelta:
a step stays positive, and one update changes it by a share of itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vitsearch.compress.quantize.codes import Codes


def fake_quantize(
    x: Tensor,
    theta: Tensor,
    bits: int,
    codes: Codes,
    log_step: Tensor | None = None,
    *,
    clips: bool = True,
) -> Tensor:
    """Values rounded to codes and back, with a gradient.

    Args:
        x: Values of any shape; in channels (C, ...) if there is a range for each.
        theta: The initial range (P,), or (P, C).
        bits: Code width.
        codes: The rule.
        log_step: r, () or (C,): the step is e^r times that of ``theta``; learned if it requires a gradient.
        clips: Whether values beyond the codes have no gradient; otherwise all have one.
    """
    if log_step is not None:
        theta = scaled(theta, log_step.detach())
    theta = theta.reshape(*theta.shape, *[1] * (x.dim() - theta.dim() + 1))
    found: Tensor = _Rounding.apply(x, log_step, theta, bits, codes, clips)
    return found


def scaled(theta: Tensor, log_step: Tensor) -> Tensor:
    """The range (P, *S) whose step is e^r times as wide."""
    return torch.cat([theta[:1] * log_step.exp(), theta[1:]])


class _Rounding(torch.autograd.Function):
    """The formulas above."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, log_step: Tensor | None, theta: Tensor, bits: int, codes: Codes, clips: bool
    ) -> Tensor:
        """Round, and keep which values lie within the codes."""
        rounded = codes.quantize(x, theta, bits)
        low, high = codes.bounds(theta, bits)
        inside = (x >= low) & (x <= high)
        ctx.clips, ctx.per_channel = clips, log_step is not None and log_step.dim() == 1
        if log_step is None:
            ctx.save_for_backward(inside)
        else:
            positive_codes = (high / theta[0]).clamp_min(1)
            slope = (rounded - x * inside) / (x[0].numel() * positive_codes).sqrt()
            ctx.save_for_backward(inside, slope)
        return rounded

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the values and of r."""
        inside, *slopes = ctx.saved_tensors
        grad_step = None
        if slopes:
            products = grad * slopes[0]
            grad_step = products.flatten(1).sum(dim=1) if ctx.per_channel else products.sum()
        return grad * inside if ctx.clips else grad, grad_step, None, None, None, None
