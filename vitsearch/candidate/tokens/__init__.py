"""Token reducers, torch-free: one file each, one line in ``TOKEN_RULES``, one kernel in ``compress.tokens``."""

from typing import Annotated

from pydantic import Field

from vitsearch.candidate.tokens.evit import EViT
from vitsearch.candidate.tokens.ppt import PPT
from vitsearch.candidate.tokens.rule import CostKind, NoReduction, TokenRule, max_merges
from vitsearch.candidate.tokens.tome import ToMe

TOKEN_RULES: dict[str, type[TokenRule]] = {"none": NoReduction, "tome": ToMe, "evit": EViT, "ppt": PPT}

AnyTokenRule = Annotated[NoReduction | ToMe | EViT | PPT, Field(discriminator="reducer")]

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
