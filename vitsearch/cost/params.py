"""Parameters, mean bits and stored size, in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from vitsearch.candidate import POOLING_WINDOWS, STEM_KERNEL, BlockWidths, Candidate
from vitsearch.cost.macs import Shape, block_macs, head_macs, stem_macs


@dataclass(frozen=True, kw_only=True)
class LayerGroup:
    """Parameters that share a bit-width.

    Attributes:
        weights: Elements of linear and convolution weights.
        others: Biases, norms, embeddings, tokens and scales; always stored at 32 bits, or at 16 when the
            weights are 16-bit floats.
        weight_bits: Bits of one weight.
    """

    weights: int
    others: int
    weight_bits: int


def layer_groups(candidate: Candidate, widths: Sequence[BlockWidths] | None = None) -> list[LayerGroup]:
    """Stem, block 1, ..., block depth, head, and the learned parts of a token reducer.

    Of blocks that share their weights the first has them; each has its norms, scales and mixing of heads.

    Args:
        candidate: The candidate.
        widths: Sizes of its blocks where a ranking has decided them.
    """
    a, widths = candidate.pruned_architecture, widths or candidate.widths
    d = widths[0].width
    bits = candidate.precision.weight_bits_per_block(a.depth)
    embeddings = a.num_prefix_tokens * d + a.num_tokens * d
    stem = LayerGroup(
        weights=d * a.patch_features
        + sum(STEM_KERNEL**2 * i * o for i, o in pairwise((a.in_chans, *a.stem_channels))),
        others=(d if a.patch_bias else 0)
        + (2 * a.patch_features if a.patch_embedding == "spt" else 0)
        + sum(a.stem_channels)
        + embeddings
        + (2 * d if a.pre_norm else 0),
        weight_bits=bits[0],
    )
    blocks = [
        LayerGroup(
            weights=(0 if i % a.share_blocks else 2 * d * (w.qk_width + w.v_width) + 2 * d * w.mlp_units)
            + (2 * w.heads**2 if w.mixes_heads else 0),
            others=(0 if i % a.share_blocks else 2 * w.qk_width + w.v_width + d + w.mlp_units + d)
            + 4 * d
            + (2 * d if a.layer_scale else 0)
            + (2 * d * (2 + len(POOLING_WINDOWS)) if a.pooling_branches else 0),
            weight_bits=bits[i],
        )
        for i, w in enumerate(widths)
    ]
    heads = (1 + a.num_distillation_tokens) * a.num_classes
    head = LayerGroup(weights=d * heads, others=heads + 2 * d, weight_bits=bits[-1])
    return [stem, *blocks, head, *_learned_groups(candidate, d)]


def _learned_groups(candidate: Candidate, width: int) -> list[LayerGroup]:
    if not candidate.tokens.learns:
        return []
    a = candidate.pruned_architecture.self_attention_part
    rule = candidate.tokens.resolved(a)
    part = rule.learned_part(a, width)
    return [LayerGroup(weights=part.weights, others=part.others, weight_bits=32)] * len(
        rule.active_blocks(a.depth)
    )


def num_params(candidate: Candidate, widths: Sequence[BlockWidths] | None = None) -> int:
    """Parameters of the model as it is shipped, after pruning; ``widths`` as in ``layer_groups``."""
    return sum(group.weights + group.others for group in layer_groups(candidate, widths))


def weight_bits(candidate: Candidate, widths: Sequence[BlockWidths] | None = None) -> float:
    """Bits averaged over the weights of linear and convolution layers; ``widths`` as in ``layer_groups``."""
    groups = layer_groups(candidate, widths)
    return sum(g.weights * g.weight_bits for g in groups) / sum(g.weights for g in groups)


def activation_bits(candidate: Candidate, shape: Shape | None = None) -> float:
    """Bits averaged over the activation operands of every MAC of linear, convolution and matrix products.

    Args:
        candidate: The candidate.
        shape: Its sizes and tokens, if not those it states; over images, MACs are averaged.
    """
    depth = candidate.pruned_architecture.depth
    bits = candidate.precision.activation_bits_per_block(depth)
    blocks = block_macs(candidate, shape)
    products = [stem_macs(candidate), *(b.linear + b.matmul for b in blocks), head_macs(candidate)]
    macs = [_mean(m) for m in (*products, *(b.learned for b in blocks))]
    widths = [bits[0], *bits, bits[-1], *[32] * depth]
    mean: float = sum(m * w for m, w in zip(macs, widths, strict=True)) / sum(macs)
    return mean


def size_mb(candidate: Candidate, widths: Sequence[BlockWidths] | None = None) -> float:
    """Every parameter at its stored width, in MB of 10^6 bytes; ``widths`` as in ``layer_groups``."""
    stored_bits = sum(
        g.weights * g.weight_bits + g.others * (16 if g.weight_bits == 16 else 32)
        for g in layer_groups(candidate, widths)
    )
    return stored_bits / 8 / 1e6


def _mean(macs: Any) -> Any:
    """Of an array over images; a plain figure as it is."""
    return macs if isinstance(macs, int) else float(macs.mean())
