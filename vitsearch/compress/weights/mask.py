"""Zeros among the weights of a network's linear layers, held while it trains on.

Shape suffixes: O outputs, I inputs, G groups of inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitsearch.candidate import Sparsity
from vitsearch.candidate.mask import GROUP, KEPT_OF_GROUP, non_zeros
from vitsearch.compress.weights.units import projections
from vitsearch.models import VisionTransformer


class MaskedLinear(nn.Module):
    """y = (M * W) x + b with a fixed mask M of zeros and ones.

    Args:
        layer: The trained projection, taken over.
        weight_mask: True where a weight stays, (O, I).
    """

    weight_mask: Tensor

    def __init__(self, layer: nn.Linear, weight_mask: Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("weight_mask", weight_mask)

    def forward(self, x: Tensor) -> Tensor:
        """Project; masked weights get no gradient."""
        return F.linear(x, self.layer.weight.where(self.weight_mask, 0), self.layer.bias)

    @torch.no_grad()
    def released(self) -> nn.Linear:
        """A plain layer that computes the same: its masked weights are zero."""
        self.layer.weight.masked_fill_(~self.weight_mask, 0)
        return self.layer


@contextmanager
def masked(model: VisionTransformer, sparsity: Sparsity, share: float = 1.0) -> Iterator[None]:
    """Hold zeros among the weights of the blocks' linear layers inside a ``with`` block; they are there after it.

    See ``hold_zeros`` for how they outlast quantisation.

    Args:
        model: Already of its final shape, or that of a step of the schedule.
        sparsity: Says which mask.
        share: How much of pruning is done: an unstructured mask has this share of its zeros (Zhu and Gupta, 2017,
            *To Prune, or Not to Prune*); 2:4 comes when all is, because units that leave later would shift groups.
    """
    mask, zeros = sparsity.mask, share * sparsity.zeros
    if mask == "none" or (mask == "2:4" and share < 1):
        yield
        return
    for parent, name in projections(model):
        layer = getattr(parent, name)
        weight_OI = layer.weight.detach()
        kept = two_of_four(weight_OI) if mask == "2:4" else largest(weight_OI, zeros)
        setattr(parent, name, MaskedLinear(layer, kept))
    try:
        yield
    finally:
        for parent, name in projections(model):
            setattr(parent, name, getattr(parent, name).released())


def hold_zeros(model: VisionTransformer) -> None:
    """Mark the zeros among the weights of the blocks' linear layers, so that quantisers keep them.

    The marks are buffers ``weight_mask`` beside the weights; they are not stored with the network.

    Args:
        model: After ``masked``.
    """
    for parent, name in projections(model):
        layer = getattr(parent, name)
        layer.register_buffer("weight_mask", layer.weight.detach() != 0, persistent=False)


def two_of_four(weight_OI: Tensor) -> Tensor:
    """The mask of the 2:4 pattern (Mishra et al., 2021, *Accelerating Sparse Deep Neural Networks*, Section 4).

    M_oi = 1 where abs(W_oi) is one of the two largest of its group W_o,4g, ..., W_o,4g+3; of equal ones the
    first. A last group of fewer than four inputs counts as filled up with zeros.

    Args:
        weight_OI: Weights of one layer.

    Returns:
        True where a weight stays, (O, I).
    """
    outputs, inputs = weight_OI.shape
    # what fills up the last group is less than any magnitude, a zero's too
    size_OGF = F.pad(weight_OI.abs(), (0, -inputs % GROUP), value=-1.0).view(outputs, -1, GROUP)
    order_OGF = size_OGF.argsort(dim=2, descending=True, stable=True)
    kept_OGF = torch.zeros_like(size_OGF, dtype=torch.bool)
    kept_OGF.scatter_(2, order_OGF[..., :KEPT_OF_GROUP], value=True)
    return kept_OGF.flatten(1)[:, :inputs]


def largest(weight_OI: Tensor, zeros: float) -> Tensor:
    """The mask of an unstructured layer (Han et al., 2015, *Learning Both Weights and Connections*).

    M_oi = 1 where abs(W_oi) is one of the O I - floor(zeros O I) largest of its layer; of equal ones the first.
    The paper sets a threshold for each layer, too; here it is the one that meets the count, see
    ``Sparsity.linear_macs``.

    Args:
        weight_OI: Weights of one layer.
        zeros: The share of zeros.

    Returns:
        True where a weight stays, (O, I).
    """
    count = non_zeros("unstructured", zeros, *weight_OI.shape)
    order = weight_OI.abs().flatten().argsort(descending=True, stable=True)
    kept = torch.zeros_like(order, dtype=torch.bool)
    kept[order[:count]] = True
    return kept.view_as(weight_OI)
