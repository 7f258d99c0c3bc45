"""Multiply-accumulates of one image, in closed form.

The convention is fvcore's: convolution, linear, matrix product and attention count each multiply-add once,
LayerNorm counts 5 per element; activations, softmax, additions and indexing are free. The closed form equals the
count of ``vitsearch.profile.count_macs`` on the built model exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

from vitsearch.candidate import STEM_KERNEL, Candidate

LAYER_NORM_MACS_PER_ELEMENT = 5


@dataclass(frozen=True, kw_only=True)
class BlockMacs:
    """MACs of one block for one image, by the operands that take part.

    Attributes:
        linear: Products of an activation with a weight.
        matmul: Products of two activations: attention and the token reducer.
        norm: LayerNorms.
    """

    linear: int
    matmul: int
    norm: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.linear + self.matmul + self.norm


def block_macs(candidate: Candidate) -> list[BlockMacs]:
    """MACs of every block for one image.

    With N tokens in, N' out, width D, H heads whose queries and keys are Q and whose values are V wide, and M
    hidden units: linear = N D H (2 Q + V) + N H V D + 2 N' D M, matmul = N^2 H (Q + V) + the reducer's own,
    norm = 5 N D + 5 N' D. ``BlockWidths`` has these figures, and those of class attention and mixed heads.
    """
    a = candidate.pruned_architecture.self_attention_part
    tokens = candidate.tokens_per_block
    active = set(candidate.tokens.blocks_with_macs(a.depth))
    found = []
    for block, w in enumerate(candidate.widths, start=1):
        n, n_out = tokens[block - 1]
        reducing = candidate.tokens.extra_macs(n, a, block, w) if block in active else 0
        found.append(
            BlockMacs(
                linear=w.linear_macs(n, n_out),
                matmul=w.attention_macs(n) + reducing,
                norm=LAYER_NORM_MACS_PER_ELEMENT * w.normed_tokens(n, n_out) * w.width,
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
    return candidate.widths[0].width * a.num_classes * (2 if a.distilled else 1)


def num_macs(candidate: Candidate) -> int:
    """MACs of one forward pass on one image; what the survey calls FLOPs."""
    a = candidate.pruned_architecture
    final_tokens = candidate.token_counts[-1] + (a.num_prefix_tokens if a.class_attention_blocks else 0)
    normalised = final_tokens + (a.num_tokens if a.pre_norm else 0)
    norms = LAYER_NORM_MACS_PER_ELEMENT * candidate.widths[0].width * normalised
    if a.patch_embedding == "spt":
        norms += LAYER_NORM_MACS_PER_ELEMENT * a.num_patches * a.patch_features
    return (
        stem_macs(candidate) + sum(block.total for block in block_macs(candidate)) + norms + head_macs(candidate)
    )
