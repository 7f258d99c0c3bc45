"""The frozen ViT configuration and the torch-free rules that make it valid."""

from vitsearch.candidate.architecture import Architecture, divisors, mlp_ratio_of
from vitsearch.candidate.candidate import Candidate, load_candidate
from vitsearch.candidate.precision import Precision
from vitsearch.candidate.sparsity import PRUNERS, Sparsity
from vitsearch.candidate.tokens import (
    PPT,
    TOKEN_RULES,
    CostKind,
    EViT,
    NoReduction,
    TokenRule,
    ToMe,
    max_merges,
)
from vitsearch.candidate.widths import BlockWidths

__all__ = [
    "PPT",
    "PRUNERS",
    "TOKEN_RULES",
    "Architecture",
    "BlockWidths",
    "Candidate",
    "CostKind",
    "EViT",
    "NoReduction",
    "Precision",
    "Sparsity",
    "ToMe",
    "TokenRule",
    "divisors",
    "load_candidate",
    "max_merges",
    "mlp_ratio_of",
]
