"""Multiply-accumulates of one image, in closed form.

The convention is fvcore's: convolution, linear, matrix product and attention count each multiply-add once,
LayerNorm counts 5 per element; activations, softmax, additions and indexing are free. Weights that a mask holds at
zero do not count. The closed form equals the count of ``vitsearch.profile.count_macs`` on the built model exactly;
where there is a mask, its count of non-zero weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from vitsearch.candidate import STEM_KERNEL, BlockWidths, Candidate

LAYER_NORM_MACS_PER_ELEMENT = 5


class Tokens(NamedTuple):
    """How many tokens there are: of any image, or an array with a figure for each of several images.

    Attributes:
        per_block: Tokens in the attention and in the MLP of block 1, 2, ..., depth.
        final: Tokens that leave the last block.
    """

    per_block: Sequence[tuple[Any, Any]]
    final: Any


class Shape(NamedTuple):
    """What a candidate's MACs are computed from.

    Attributes:
        widths: Sizes of every block that is left.
        tokens: Tokens there.
    """

    widths: Sequence[BlockWidths]
    tokens: Tokens


def shape_of(
    candidate: Candidate, widths: Sequence[BlockWidths] | None = None, tokens: Tokens | None = None
) -> Shape:
    """What the candidate says, or what its trained network has.

    Args:
        candidate: The candidate.
        widths: Sizes of its blocks where a ranking has decided them.
        tokens: Tokens where images decide them.
    """
    known = tokens or Tokens(candidate.tokens_per_block, candidate.token_counts[-1])
    return Shape(widths or candidate.widths, known)


@dataclass(frozen=True, kw_only=True)
class BlockMacs:
    """MACs of one block for one image, by the operands that take part.

    Attributes:
        linear: Products of an activation with a weight.
        matmul: Products of two activations: attention and the token reducer.
        learned: Products with the weights of a token reducer that learns, which are never quantised.
        norm: LayerNorms.
    """

    linear: Any
    matmul: Any
    learned: Any
    norm: Any

    @property
    def total(self) -> Any:
        """All of them."""
        return self.linear + self.matmul + self.learned + self.norm


def block_macs(candidate: Candidate, shape: Shape | None = None) -> list[BlockMacs]:
    """MACs of every block for one image.

    With N tokens in, N' out, width D, H heads whose queries and keys are Q and whose values are V wide, and M
    hidden units: linear = N D H (2 Q + V) + N H V D + 2 N' D M, matmul = N^2 H (Q + V) + the reducer's own,
    norm = 5 N D + 5 N' D. ``BlockWidths`` has these figures, and those of class attention and mixed heads. Under a
    mask, linear is what ``Sparsity.linear_macs`` says.

    Args:
        candidate: The candidate.
        shape: Its sizes and tokens, if not those it states; figures are arrays where tokens are.
    """
    a = candidate.pruned_architecture.self_attention_part
    widths, (tokens, _) = shape or shape_of(candidate)
    rule = candidate.tokens.resolved(a) if candidate.tokens.learns else candidate.tokens
    active = set(rule.blocks_with_macs(a.depth))
    learning = set(rule.active_blocks(a.depth)) if rule.learns else set()
    part = rule.learned_part(a, widths[0].width)
    entering = [n for n, _ in tokens]
    found = []
    for block, w in enumerate(widths, start=1):
        n, n_out = tokens[block - 1]
        reducing = rule.extra_macs(n, a, block, w) if block in active else 0
        judged = rule.tokens_judged(a, block, entering) - a.num_prefix_tokens if block in learning else 0
        once = int(block in learning)
        found.append(
            BlockMacs(
                linear=candidate.sparsity.linear_macs(w, n, n_out),
                matmul=w.attention_macs(n) + reducing,
                learned=part.products * judged + once * part.products_once,
                norm=LAYER_NORM_MACS_PER_ELEMENT * w.normed_tokens(n, n_out) * w.width
                + part.norms * judged
                + once * part.norms_once,
            )
        )
    return found


def stem_macs(candidate: Candidate) -> int:
    """MACs of the patch projection for one image, convolutions before it included.

    Convolution i of a stem, which halves the side, costs (image side / 2^i)^2 times 9 C_(i-1) C_i.
    """
    a = candidate.architecture
    macs, side, channels = a.num_patches * candidate.widths[0].width * a.patch_features, a.image_size, a.in_chans
    for out in a.stem_channels:
        side //= 2
        macs += side**2 * STEM_KERNEL**2 * channels * out
        channels = out
    return macs


def head_macs(candidate: Candidate) -> int:
    """MACs of the classifier heads for one image."""
    a = candidate.architecture
    return candidate.widths[0].width * a.num_classes * (1 + a.num_distillation_tokens)


def num_macs(candidate: Candidate, shape: Shape | None = None) -> Any:
    """MACs of one forward pass on one image; what the survey calls FLOPs. An array where the tokens are one."""
    a = candidate.pruned_architecture
    shape = shape or shape_of(candidate)
    final_tokens = shape.tokens.final + (a.num_prefix_tokens if a.class_attention_blocks else 0)
    normalised = final_tokens + (a.num_tokens if a.pre_norm else 0)
    norms = LAYER_NORM_MACS_PER_ELEMENT * shape.widths[0].width * normalised
    if a.patch_embedding == "spt":
        norms += LAYER_NORM_MACS_PER_ELEMENT * a.num_patches * a.patch_features
    blocks = sum(block.total for block in block_macs(candidate, shape))
    return stem_macs(candidate) + blocks + norms + head_macs(candidate)
