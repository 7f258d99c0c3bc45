"""The frozen ViT configuration and the torch-free rules that make it valid."""

from vitsearch.candidate.architecture import STEM_KERNEL, Architecture, divisors, is_stem_patch, mlp_ratio_of
from vitsearch.candidate.budget import even_widths, least_ratio, products
from vitsearch.candidate.candidate import Candidate, load_candidate, token_counts_of
from vitsearch.candidate.precision import Precision
from vitsearch.candidate.sparsity import PRUNERS, Sparsity
from vitsearch.candidate.tokens import (
    PPT,
    SCORES,
    TOKEN_RULES,
    TPS,
    BlockwiseRule,
    CostKind,
    DiffRate,
    EViT,
    EvoViT,
    GridPool,
    NoReduction,
    ScoreKind,
    SPViT,
    TokenPooling,
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
    "STEM_KERNEL",
    "TOKEN_RULES",
    "TPS",
    "Architecture",
    "BlockWidths",
    "BlockwiseRule",
    "Candidate",
    "CostKind",
    "DiffRate",
    "EViT",
    "EvoViT",
    "GridPool",
    "NoReduction",
    "Precision",
    "SPViT",
    "ScoreKind",
    "Sparsity",
    "ToMe",
    "TokenPooling",
    "TokenRule",
    "TopK",
    "divisors",
    "even_widths",
    "every_block",
    "is_stem_patch",
    "least_ratio",
    "load_candidate",
    "max_merges",
    "mlp_ratio_of",
    "products",
    "quarter_blocks",
    "token_counts_of",
]
