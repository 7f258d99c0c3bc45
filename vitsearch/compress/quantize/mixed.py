"""Weight bits shared out among blocks by sensitivity (after Liu et al., Post-Training Quantization for ViT, 2021).

The candidate's figures are the budget: which block gets which is decided once the network is trained. With f the
network, f_lb the same with the weights of block l alone at b bits, and x the calibration images::

    S(l, b) = mean over images of ||f(x) - f_lb(x)||^2,   bits = argmin over permutations of sum_l S(l, bits_l)

an assignment problem, solved exactly. Figures change places only among blocks of equal shape, and never those of
the first and the last block, whose bits the stem and the heads have: so mean bits and size are the candidate's to
the bit (under ``sparsity.macs_ratio``, where shapes are an estimate, so are they).
The paper measures sensitivity by nuclear norms and gives the bits a budget of size alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from vitsearch.candidate import Candidate, Precision
from vitsearch.compress.quantize.layers import QuantizedProjection
from vitsearch.models import Block, VisionTransformer

BITS_NAME = "weight_bits_L"  # of the buffer that keeps a network's bits beside its weights


@torch.no_grad()
def share_out_bits(model: VisionTransformer, candidate: Candidate, batches: Sequence[Tensor]) -> Precision:
    """The candidate's precision with its weight bits where the network needs them; itself if none are shared out.

    Args:
        model: Trained, pruned, with token reducers, without quantisers; not changed.
        candidate: Says which figures there are.
        batches: Normalised images (B, C, H, W).
    """
    precision = candidate.precision
    if not precision.mixed:
        return precision
    bits = list(precision.weight_bits_per_block(len(model.blocks)))
    exact = [model(images_BCHW) for images_BCHW in batches]
    for group in candidate.equal_blocks:
        figures = [bits[block] for block in group]
        if len(set(figures)) == 1:
            continue
        costs = {
            b: [_sensitivity(model, block, b, precision, batches, exact) for block in group] for b in set(figures)
        }
        found = assigned(np.array([costs[b] for b in figures]).T, figures)
        for block, figure in zip(group, found, strict=True):
            bits[block] = figure
    return precision.model_copy(update={"weight_bits": tuple(bits)})


def assigned(costs_LB: np.ndarray, figures: Sequence[int]) -> list[int]:
    """The order of ``figures`` of least total cost.

    Args:
        costs_LB: What block l loses at the figure in column b.
        figures: One per column.
    """
    from scipy.optimize import linear_sum_assignment

    _, columns = linear_sum_assignment(costs_LB)
    return [figures[column] for column in columns]


def remember_bits(model: VisionTransformer, precision: Precision) -> None:
    """Keep the bits beside the weights, where they do not follow from the candidate."""
    if precision.mixed:
        bits = torch.tensor(precision.weight_bits_per_block(model.architecture.depth))
        model.register_buffer(BITS_NAME, bits.to(model.pos_embed.device))


def remembered(precision: Precision, state: Mapping[str, Tensor] | None) -> Precision:
    """The precision with the bits that were kept beside its weights."""
    if not precision.mixed or state is None or BITS_NAME not in state:
        return precision
    return precision.model_copy(update={"weight_bits": tuple(int(b) for b in state[BITS_NAME])})


def _sensitivity(
    model: VisionTransformer,
    block: int,
    bits: int,
    precision: Precision,
    batches: Sequence[Tensor],
    exact: Sequence[Tensor],
) -> float:
    here = model.blocks[block]
    assert isinstance(here, Block)
    layers = {here.attn.qkv: False, here.attn.proj: False, here.mlp.fc1: True, here.mlp.fc2: True}
    kept = [layer.weight.clone() for layer in layers]
    for layer, in_mlp in layers.items():
        QuantizedProjection(layer, bits, 32, precision, "norm", in_mlp=in_mlp).settle()
    pairs = zip(batches, exact, strict=True)
    total = sum(float((model(images) - logits).square().sum()) for images, logits in pairs)
    for layer, weight in zip(layers, kept, strict=True):
        layer.weight.copy_(weight)
    return total / sum(map(len, batches))
