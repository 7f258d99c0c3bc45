"""Token reducers as running code: one kernel file each, one line in ``REDUCERS``.

Their names and settings are those of ``vitsearch.candidate.TOKEN_RULES``.
"""

from collections.abc import Callable
from typing import Any

from vitsearch.candidate import Architecture, Candidate
from vitsearch.compress.tokens.diffrate import build_diffrate
from vitsearch.compress.tokens.evit import build_evit
from vitsearch.compress.tokens.grid_pool import build_grid_pool
from vitsearch.compress.tokens.ppt import build_ppt
from vitsearch.compress.tokens.spvit import build_spvit
from vitsearch.compress.tokens.token_pooling import build_token_pooling
from vitsearch.compress.tokens.tome import build_tome
from vitsearch.compress.tokens.topk import build_topk
from vitsearch.compress.tokens.tps import build_tps
from vitsearch.models import TokenReducer

Builder = Callable[[Any, Architecture], dict[int, TokenReducer]]

REDUCERS: dict[str, Builder] = {
    "none": lambda rule, architecture: {},  # noqa: ARG005
    "tome": build_tome,
    "evit": build_evit,
    "ppt": build_ppt,
    "topk": build_topk,
    "diffrate": build_diffrate,
    "tps": build_tps,
    "spvit": build_spvit,
    "grid_pool": build_grid_pool,
    "token_pooling": build_token_pooling,
}


def build_reducers(candidate: Candidate) -> dict[int, TokenReducer]:
    """The candidate's reducers by block number, from 1."""
    return REDUCERS[candidate.tokens.reducer](candidate.tokens, candidate.pruned_architecture)


__all__ = ["REDUCERS", "build_reducers"]
