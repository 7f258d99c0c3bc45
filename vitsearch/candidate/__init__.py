"""The frozen ViT configuration and the torch-free rules that make it valid."""

from vitsearch.candidate.architecture import Architecture, divisors, mlp_ratio_of
from vitsearch.candidate.candidate import Candidate, load_candidate
from vitsearch.candidate.precision import Precision
from vitsearch.candidate.sparsity import PRUNERS, Sparsity
from vitsearch.candidate.tokens import (
    PPT,
    SCORES,
    TOKEN_RULES,
    BlockwiseRule,
    CostKind,
    EViT,
    NoReduction,
    TokenRule,
    ToMe,
    TopK,
    every_block,
    max_merges,
    quarter_blocks,
)
from vitsearch.candidate.widths import BlockWidths

__all__ = [
    "PPT",
    "PRUNERS",
    "SCORES",
    "TOKEN_RULES",
    "Architecture",
    "BlockWidths",
    "BlockwiseRule",
    "Candidate",
    "CostKind",
    "EViT",
    "NoReduction",
    "Precision",
    "Sparsity",
    "ToMe",
    "TokenRule",
    "TopK",
    "divisors",
    "every_block",
    "load_candidate",
    "max_merges",
    "mlp_ratio_of",
    "quarter_blocks",
]
