"""Multiply-accumulates of one image, in closed form.

The convention is fvcore's: convolution, linear, matrix product and attention count each multiply-add once,
LayerNorm counts 5 per element; activations, softmax, additions and indexing are free. The closed form equals the
count of ``vitsearch.profile.count_macs`` on the built model exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

from vitsearch.candidate import Candidate

LAYER_NORM_MACS_PER_ELEMENT = 5


@dataclass(frozen=True, kw_only=True)
class BlockShape:
    """The sizes that decide what one transformer block costs.

    Attributes:
        num_tokens: Tokens entering the block, N.
        num_tokens_out: Tokens leaving it, N'.
        attn_dim: Width of all its heads together, A.
        mlp_units: Hidden units of its MLP, M.
    """

    num_tokens: int
    num_tokens_out: int
    attn_dim: int
    mlp_units: int


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


def block_shapes(candidate: Candidate) -> list[BlockShape]:
    """The sizes of every block, first to last."""
    a = candidate.architecture
    tokens = candidate.tokens.token_counts(a)
    heads = candidate.sparsity.heads_per_block(a)
    units = candidate.sparsity.mlp_units_per_block(a)
    return [
        BlockShape(
            num_tokens=tokens[i],
            num_tokens_out=tokens[i + 1],
            attn_dim=heads[i] * a.head_dim,
            mlp_units=units[i],
        )
        for i in range(a.depth)
    ]


def block_macs(candidate: Candidate) -> list[BlockMacs]:
    """MACs of every block for one image.

    With N tokens in, N' out, width D, attention width A and M hidden units: linear = N D 3A + N A D + 2 N' D M,
    matmul = 2 N^2 A + the reducer's own, norm = 5 N D + 5 N' D.
    """
    a = candidate.architecture
    active = set(candidate.tokens.active_blocks(a.depth))
    found = []
    for block, s in enumerate(block_shapes(candidate), start=1):
        reducing = candidate.tokens.extra_macs(s.num_tokens, a, block, s.attn_dim) if block in active else 0
        found.append(
            BlockMacs(
                linear=4 * s.num_tokens * a.width * s.attn_dim + 2 * s.num_tokens_out * a.width * s.mlp_units,
                matmul=2 * s.num_tokens**2 * s.attn_dim + reducing,
                norm=LAYER_NORM_MACS_PER_ELEMENT * (s.num_tokens + s.num_tokens_out) * a.width,
            )
        )
    return found


def stem_macs(candidate: Candidate) -> int:
    """MACs of the patch projection for one image."""
    a = candidate.architecture
    return a.num_patches * a.width * a.in_chans * a.patch_size**2


def head_macs(candidate: Candidate) -> int:
    """MACs of the classifier heads for one image."""
    a = candidate.architecture
    return a.width * a.num_classes * (2 if a.distilled else 1)


def num_macs(candidate: Candidate) -> int:
    """MACs of one forward pass on one image; what the survey calls FLOPs."""
    a = candidate.architecture
    final_tokens = candidate.tokens.token_counts(a)[-1]
    norms = LAYER_NORM_MACS_PER_ELEMENT * a.width * (final_tokens + (a.num_tokens if a.pre_norm else 0))
    return (
        stem_macs(candidate) + sum(block.total for block in block_macs(candidate)) + norms + head_macs(candidate)
    )
