"""Token reducers as running code: one kernel file each, one line in ``REDUCERS``.

Their names and settings are those of ``vitsearch.candidate.TOKEN_RULES``.
"""

from collections.abc import Callable, Mapping
from typing import Any

from vitsearch.candidate import Architecture, Candidate
from vitsearch.compress.tokens.diffrate import build_diffrate
from vitsearch.compress.tokens.evit import build_evit
from vitsearch.compress.tokens.evo import build_evo
from vitsearch.compress.tokens.grid_pool import build_grid_pool
from vitsearch.compress.tokens.ppt import build_ppt
from vitsearch.compress.tokens.spvit import build_spvit
from vitsearch.compress.tokens.token_pooling import build_token_pooling
from vitsearch.compress.tokens.tome import build_tome
from vitsearch.compress.tokens.topk import build_topk
from vitsearch.compress.tokens.tps import build_tps
from vitsearch.models import TokenReducer, TokenRoute

Builder = Callable[[Any, Architecture], Mapping[int, TokenReducer | TokenRoute]]

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
    "evo": build_evo,
}


def build_reducers(candidate: Candidate) -> Mapping[int, TokenReducer | TokenRoute]:
    """The candidate's reducers by block number, from 1."""
    part = candidate.pruned_architecture.self_attention_part
    return REDUCERS[candidate.tokens.reducer](candidate.tokens, part)


__all__ = ["REDUCERS", "build_reducers"]
