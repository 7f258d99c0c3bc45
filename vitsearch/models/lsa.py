"""Locality self-attention: what of it is learned, and what a finished network keeps of that.

LSA (Lee et al., 2021, *Vision Transformer for Small-Size Datasets*, Eq. 9-12)::

    L(x) = softmax(M(Q K^T) / tau) V,   M hides the diagonal

The diagonal stays hidden in the finished network (``Attention.hides_self``). The temperatures tau, one for each
head and sqrt(K) at first, are learned; then they are folded into the queries, so that a finished network has no
parameters for them.
"""

from __future__ import annotations

import torch
from torch import nn

from vitsearch.models.attention import Attention


def learn_temperatures(model: nn.Module) -> None:
    """Give every head that hides itself a temperature to learn."""
    for module in model.modules():
        if isinstance(module, Attention) and module.hides_self:
            device = module.proj.weight.device
            module.temperature_H = nn.Parameter(torch.full((module.num_heads,), 1 / module.scale, device=device))


@torch.no_grad()
def fold_temperatures(model: nn.Module) -> None:
    """Q <- q sqrt(K) / tau, in the weights; the outputs stay what they are."""
    for module in model.modules():
        if isinstance(module, Attention) and module.temperature_H is not None:
            factor = (1 / (module.temperature_H * module.scale)).repeat_interleave(module.qk_dim)
            rows, layer = module.num_heads * module.qk_dim, getattr(module, module.inputs[0])
            layer.weight[:rows] *= factor[:, None]
            layer.bias[:rows] *= factor
            module.temperature_H = None
