"""Token reducers as running code: one kernel file each, one line in ``REDUCERS``.

Their names and settings are those of ``vitsearch.candidate.TOKEN_RULES``.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vitsearch.candidate import Architecture, Candidate
from vitsearch.candidate.tokens.score import ScoredRule
from vitsearch.compress.tokens.ats import build_ats
from vitsearch.compress.tokens.avit import avit_losses, build_avit
from vitsearch.compress.tokens.diffrate import build_diffrate
from vitsearch.compress.tokens.diffrate_learned import build_diffrate_learned, diffrate_losses
from vitsearch.compress.tokens.dynamicvit import build_dynamicvit, dynamicvit_losses
from vitsearch.compress.tokens.evit import build_evit
from vitsearch.compress.tokens.evo import build_evo
from vitsearch.compress.tokens.grid_pool import build_grid_pool
from vitsearch.compress.tokens.iared import build_iared, iared_losses
from vitsearch.compress.tokens.learned import LearnedScoreReducer
from vitsearch.compress.tokens.ltmp import build_ltmp, ltmp_losses
from vitsearch.compress.tokens.meter import TokenMeter, metered
from vitsearch.compress.tokens.ppt import build_ppt
from vitsearch.compress.tokens.ps_vit import build_ps_vit, fit_ps_vit
from vitsearch.compress.tokens.similarity_pool import build_similarity_pool
from vitsearch.compress.tokens.spvit import build_spvit
from vitsearch.compress.tokens.threshold import build_threshold
from vitsearch.compress.tokens.token_pooling import build_token_pooling
from vitsearch.compress.tokens.tome import build_tome
from vitsearch.compress.tokens.topk import build_topk
from vitsearch.compress.tokens.tps import build_tps
from vitsearch.models import TokenReducer, TokenRoute, VisionTransformer
from vitsearch.train.losses import LossTerm

Reducers = Mapping[int, TokenReducer | TokenRoute]
Builder = Callable[[Any, Architecture], Reducers]
Losses = Callable[[VisionTransformer, Any, VisionTransformer], AbstractContextManager[tuple[LossTerm, ...]]]


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A reducer that trains with the network, or is fitted to a trained one.

    Attributes:
        build: Makes it from its rule, the architecture and the width of a token.
        losses: From the network with the reducer, the rule, and the network before any token left: what is added
            to the recipe's loss inside a ``with`` block of training; nothing when left out.
        fit: Chooses what is chosen once, on normalised images (B, C, H, W), in a trained network with the reducer.
    """

    build: Callable[[Any, Architecture, int], Reducers]
    losses: Losses | None = None
    fit: Callable[[VisionTransformer, Any, Tensor], None] | None = None


REDUCERS: dict[str, Builder | Learner] = {
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
    "threshold": build_threshold,
    "ats": build_ats,
    "similarity_pool": build_similarity_pool,
    "dynamicvit": Learner(build=build_dynamicvit, losses=dynamicvit_losses),
    "ltmp": Learner(build=lambda rule, architecture, width: build_ltmp(rule, architecture), losses=ltmp_losses),  # noqa: ARG005
    "diffrate_learned": Learner(
        build=lambda rule, architecture, width: build_diffrate_learned(rule, architecture),  # noqa: ARG005
        losses=diffrate_losses,
    ),
    "iared": Learner(build=build_iared, losses=iared_losses),
    "ps_vit": Learner(build=lambda rule, architecture, width: build_ps_vit(rule, architecture), fit=fit_ps_vit),  # noqa: ARG005
    "avit": Learner(build=lambda rule, architecture, width: build_avit(rule, architecture), losses=avit_losses),  # noqa: ARG005
}


def build_reducers(candidate: Candidate, width: int | None = None) -> Reducers:
    """The candidate's reducers by block number, from 1.

    Args:
        candidate: Its rule and shape.
        width: Of a token, where it is not yet the candidate's own.
    """
    rule, architecture = candidate.tokens, candidate.pruned_architecture.self_attention_part
    width = width or candidate.widths[0].width
    kind = REDUCERS[rule.reducer]
    found = kind.build(rule, architecture, width) if isinstance(kind, Learner) else kind(rule, architecture)
    if not (isinstance(rule, ScoredRule) and rule.score_learns):
        return found
    prefix = architecture.num_prefix_tokens
    return {
        number: LearnedScoreReducer(one, width, prefix)
        for number, one in found.items()
        if not isinstance(one, TokenRoute)
    }


@contextmanager
def token_losses(
    model: VisionTransformer, candidate: Candidate, teacher: VisionTransformer
) -> Iterator[tuple[LossTerm, ...]]:
    """What a candidate's reducer adds to the recipe's loss while it trains; nothing for one that does not learn.

    Args:
        model: With the reducer.
        candidate: Its rule.
        teacher: The trained network before any token left.
    """
    kind = REDUCERS[candidate.tokens.reducer]
    if not isinstance(kind, Learner) or kind.losses is None:
        yield ()
        return
    with kind.losses(model, candidate.tokens, teacher) as terms:
        yield terms


def fit_reducers(model: VisionTransformer, candidate: Candidate, images_BCHW: Tensor) -> None:
    """Let a reducer that is fitted choose, in place; nothing for any other.

    Args:
        model: A trained network with the reducer.
        candidate: Its rule.
        images_BCHW: Normalised training images.
    """
    kind = REDUCERS[candidate.tokens.reducer]
    if isinstance(kind, Learner) and kind.fit is not None:
        kind.fit(model, candidate.tokens, images_BCHW)


__all__ = ["REDUCERS", "Learner", "TokenMeter", "build_reducers", "fit_reducers", "metered", "token_losses"]
