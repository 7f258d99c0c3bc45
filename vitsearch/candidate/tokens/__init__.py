"""Token reducers, torch-free: one file each, one line in ``TOKEN_RULES``, one kernel in ``compress.tokens``.

What they rank patches by stands in one table, too: ``SCORES``.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import SerializeAsAny

from vitsearch.candidate.tokens.blocks import BlockwiseRule, every_block, max_merges, quarter_blocks
from vitsearch.candidate.tokens.diffrate import DiffRate
from vitsearch.candidate.tokens.evit import EViT
from vitsearch.candidate.tokens.evo import EvoViT
from vitsearch.candidate.tokens.grid_pool import GridPool
from vitsearch.candidate.tokens.ppt import PPT
from vitsearch.candidate.tokens.rule import CostKind, NoReduction, TokenRule
from vitsearch.candidate.tokens.score import SCORES, ScoreKind
from vitsearch.candidate.tokens.spvit import SPViT
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
}


AnyTokenRule = Annotated[SerializeAsAny[TokenRule], RecordOf(TOKEN_RULES, "reducer")]

__all__ = [
    "PPT",
    "SCORES",
    "TOKEN_RULES",
    "TPS",
    "AnyTokenRule",
    "BlockwiseRule",
    "CostKind",
    "DiffRate",
    "EViT",
    "EvoViT",
    "GridPool",
    "NoReduction",
    "SPViT",
    "ScoreKind",
    "ToMe",
    "TokenPooling",
    "TokenRule",
    "TopK",
    "every_block",
    "max_merges",
    "quarter_blocks",
]
