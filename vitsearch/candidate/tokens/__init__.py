"""Token reducers, torch-free: one file each, one line in ``TOKEN_RULES``, one kernel in ``compress.tokens``."""

from __future__ import annotations

from typing import Annotated

from pydantic import SerializeAsAny

from vitsearch.candidate.tokens.evit import EViT
from vitsearch.candidate.tokens.ppt import PPT
from vitsearch.candidate.tokens.rule import CostKind, NoReduction, TokenRule, max_merges
from vitsearch.candidate.tokens.tome import ToMe
from vitsearch.config.named import RecordOf

TOKEN_RULES: dict[str, type[TokenRule]] = {
    "none": NoReduction,
    "tome": ToMe,
    "evit": EViT,
    "ppt": PPT,
}


AnyTokenRule = Annotated[SerializeAsAny[TokenRule], RecordOf(TOKEN_RULES, "reducer")]

__all__ = [
    "PPT",
    "TOKEN_RULES",
    "AnyTokenRule",
    "CostKind",
    "EViT",
    "NoReduction",
    "ToMe",
    "TokenRule",
    "max_merges",
]
