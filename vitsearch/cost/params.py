"""Parameters, mean bits and stored size, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from vitsearch.candidate import STEM_KERNEL, Candidate
from vitsearch.cost.macs import block_macs, head_macs, stem_macs


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


def layer_groups(candidate: Candidate) -> list[LayerGroup]:
    """Stem, block 1, ..., block depth, head.

    Of blocks that share their weights the first has them; each has its norms, scales and mixing of heads.
    """
    a, widths = candidate.pruned_architecture, candidate.widths
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
            + (2 * d if a.layer_scale else 0),
            weight_bits=bits[i],
        )
        for i, w in enumerate(widths)
    ]
    heads = (2 if a.distilled else 1) * a.num_classes
    head = LayerGroup(weights=d * heads, others=heads + 2 * d, weight_bits=bits[-1])
    return [stem, *blocks, head]


def num_params(candidate: Candidate) -> int:
    """Parameters of the model as it is shipped, after pruning."""
    return sum(group.weights + group.others for group in layer_groups(candidate))


def weight_bits(candidate: Candidate) -> float:
    """Bits averaged over the weights of linear and convolution layers."""
    groups = layer_groups(candidate)
    return sum(g.weights * g.weight_bits for g in groups) / sum(g.weights for g in groups)


def activation_bits(candidate: Candidate) -> float:
    """Bits averaged over the activation operands of every MAC of linear, convolution and matrix products."""
    depth = candidate.pruned_architecture.depth
    bits = candidate.precision.activation_bits_per_block(depth)
    macs = [stem_macs(candidate), *(b.linear + b.matmul for b in block_macs(candidate)), head_macs(candidate)]
    widths = [bits[0], *bits, bits[-1]]
    return sum(m * w for m, w in zip(macs, widths, strict=True)) / sum(macs)


def size_mb(candidate: Candidate) -> float:
    """Every parameter at its stored width, in MB of 10^6 bytes."""
    stored_bits = sum(
        g.weights * g.weight_bits + g.others * (16 if g.weight_bits == 16 else 32) for g in layer_groups(candidate)
    )
    return stored_bits / 8 / 1e6
