"""Weight bits shared out among blocks by sensitivity (after Liu et al., Post-Training Quantization for ViT, 2021).

The candidate's mean is the budget: which block gets how many is decided once the network is trained. With f the
network, f_lb the same with the weights of block l alone at b bits, x the calibration images, and L blocks of one
shape whose bits have the sum T::

    S(l, b) = mean over images of ||f(x) - f_lb(x)||^2
    bits = argmin over b_1, ..., b_L in 1..8 with sum_l b_l = T of sum_l S(l, b_l)

a knapsack problem of multiple choice, solved exactly. Bits move only among blocks of equal shape, and never those
of the first and the last block, whose bits the stem and the heads have: so mean bits and size are the candidate's
to the bit (under ``sparsity.macs_ratio``, where shapes are an estimate, so are they).
The paper measures sensitivity by nuclear norms, and shares out the bits of activations as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vitsearch.candidate import Candidate, Precision
from vitsearch.candidate.precision import ANY_BITS, bit_pools
from vitsearch.compress.quantize.layers import QuantizedProjection
from vitsearch.models import Block, VisionTransformer, mean_of_heads

BITS_NAME = "weight_bits_L"  # of the buffer that keeps a network's bits beside its weights
CHOICES = tuple(sorted(ANY_BITS))


@torch.no_grad()
def share_out_bits(model: VisionTransformer, candidate: Candidate, batches: Sequence[Tensor]) -> Precision:
    """The candidate's precision with its weight bits where the network needs them; itself if none are shared out.

    Args:
        model: Trained, pruned, with token reducers, without quantisers; not changed.
        candidate: Says how many bits there are.
        batches: Normalised images (B, C, H, W).
    """
    precision = candidate.precision
    if not precision.mixed:
        return precision
    figures = precision.weight_bits_per_block(len(model.blocks))
    pools = bit_pools(figures, candidate.equal_blocks)
    losses = sensitivities(model, [block for pool in pools for block in pool.blocks], precision, batches)
    for pool in pools:
        found = least_total([losses[block] for block in pool.blocks], pool.total)
        figures = pool.shared_out(figures, found, candidate.architecture.share_blocks)
    return precision.model_copy(update={"weight_bits": figures})


@torch.no_grad()
def sensitivities(
    model: VisionTransformer, blocks: Sequence[int], precision: Precision, batches: Sequence[Tensor]
) -> dict[int, list[float]]:
    """What each block loses at 1, ..., 8 bits, by the block's index: S above.

    Args:
        model: Without quantisers; not changed.
        blocks: Indices; of blocks that share their weights, the first.
        precision: Says how weights become codes.
        batches: Normalised images (B, C, H, W).
    """
    states = [model.entering(images_BCHW) for images_BCHW in batches]
    exact = [model(images_BCHW) for images_BCHW in batches]
    losses: dict[int, list[float]] = {}
    for index, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        if index in blocks:
            losses[index] = []
            for bits in CHOICES:
                with _rounded(block, bits, precision):
                    ends = [mean_of_heads(model.heads_of(model.run_from(index, state))) for state in states]
                changes = [(end - logits).square().sum() for end, logits in zip(ends, exact, strict=True)]
                losses[index].append(float(sum(changes)) / sum(map(len, batches)))
        states = [block.run(state) for state in states]
    return losses


def least_total(losses_LB: npt.ArrayLike, total: int) -> list[int]:
    """Bits of each block, of a given sum and the least total loss.

    Args:
        losses_LB: What block l loses at 1 + b bits, (L, 8).
        total: The sum, from L to 8 L.
    """
    rows = np.asarray(losses_LB, dtype=np.float64)
    best_T = np.full(total + 1, np.inf)  # least loss of the blocks so far, by the bits that they have
    best_T[0] = 0.0
    taken = []
    for row in rows:
        reached = np.full((len(CHOICES), total + 1), np.inf)
        for place, bits in enumerate(CHOICES[:total]):
            reached[place, bits:] = best_T[: total + 1 - bits] + row[place]
        taken.append(reached.argmin(axis=0))
        best_T = reached.min(axis=0)
    found = []
    for choice_T in reversed(taken):
        found.append(CHOICES[choice_T[total]])
        total -= found[-1]
    return found[::-1]


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


@contextmanager
def _rounded(block: Block, bits: int, precision: Precision) -> Iterator[None]:
    """The block with its weights at these bits, for a while."""
    parts = ((block.attn, False), (block.mlp, True))
    layers = [(layer, inner) for part, inner in parts for layer in part.modules() if isinstance(layer, nn.Linear)]
    kept = [layer.weight.clone() for layer, _ in layers]
    for layer, in_mlp in layers:
        QuantizedProjection(layer, bits, 32, precision, "norm", in_mlp=in_mlp).settle()
    try:
        yield
    finally:
        for (layer, _), weight in zip(layers, kept, strict=True):
            layer.weight.copy_(weight)
