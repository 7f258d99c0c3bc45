"""Token reducers, torch-free: one file each, one line in ``TOKEN_RULES``, one kernel in ``compress.tokens``.

What they rank patches by stands in one table, too: ``SCORES``.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import SerializeAsAny

from vitsearch.candidate.tokens.ats import ATS
from vitsearch.candidate.tokens.avit import AViT
from vitsearch.candidate.tokens.blocks import BlockwiseRule, every_block, max_merges, quarter_blocks
from vitsearch.candidate.tokens.diffrate import DiffRate
from vitsearch.candidate.tokens.diffrate_learned import DiffRateLearned
from vitsearch.candidate.tokens.dynamicvit import DynamicViT
from vitsearch.candidate.tokens.evit import EViT
from vitsearch.candidate.tokens.evo import EvoViT
from vitsearch.candidate.tokens.grid_pool import GridPool
from vitsearch.candidate.tokens.iared import IARed
from vitsearch.candidate.tokens.ltmp import LTMP
from vitsearch.candidate.tokens.ppt import PPT
from vitsearch.candidate.tokens.ps_vit import PSViT
from vitsearch.candidate.tokens.rule import CostKind, LearnedPart, NoReduction, TokenRule
from vitsearch.candidate.tokens.score import SCORES, ScoreKind
from vitsearch.candidate.tokens.similarity_pool import SimilarityPool
from vitsearch.candidate.tokens.spvit import SPViT
from vitsearch.candidate.tokens.threshold import ThresholdSelection
from vitsearch.candidate.tokens.token_pooling import TokenPooling
from vitsearch.candidate.tokens.tome import ToMe
from vitsearch.candidate.tokens.topk import TopK
from vitsearch.candidate.tokens.tps import TPS
from vitsearch.config.named import RecordOf

TOKEN_RULES: dict[str, type[TokenRule]] = {
    "none": NoReduction,
    "tome": ToMe,
    "evit": EViT,
    "ppt": PPT,
    "topk": TopK,
    "diffrate": DiffRate,
    "tps": TPS,
    "spvit": SPViT,
    "grid_pool": GridPool,
    "token_pooling": TokenPooling,
    "evo": EvoViT,
    "threshold": ThresholdSelection,
    "ats": ATS,
    "similarity_pool": SimilarityPool,
    "dynamicvit": DynamicViT,
    "ltmp": LTMP,
    "avit": AViT,
    "diffrate_learned": DiffRateLearned,
    "iared": IARed,
    "ps_vit": PSViT,
}


AnyTokenRule = Annotated[SerializeAsAny[TokenRule], RecordOf(TOKEN_RULES, "reducer")]

__all__ = [
    "ATS",
    "LTMP",
    "PPT",
    "SCORES",
    "TOKEN_RULES",
    "TPS",
    "AViT",
    "AnyTokenRule",
    "BlockwiseRule",
    "CostKind",
    "DiffRate",
    "DiffRateLearned",
    "DynamicViT",
    "EViT",
    "EvoViT",
    "GridPool",
    "IARed",
    "LearnedPart",
    "NoReduction",
    "PSViT",
    "SPViT",
    "ScoreKind",
    "SimilarityPool",
    "ThresholdSelection",
    "ToMe",
    "TokenPooling",
    "TokenRule",
    "TopK",
    "every_block",
    "max_merges",
    "quarter_blocks",
]
