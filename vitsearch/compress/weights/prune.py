"""From a trained dense network to the candidate's smaller one."""

from __future__ import annotations

from vitsearch.candidate import PRUNERS, Candidate
from vitsearch.compress.weights.context import PruneContext, Ranking
from vitsearch.compress.weights.slicing import choose, slice_network
from vitsearch.config.named import Imported
from vitsearch.models import VisionTransformer

RANKINGS: Imported[Ranking] = Imported(PRUNERS)
NO_CONTEXT = PruneContext()


def prune(model: VisionTransformer, candidate: Candidate, context: PruneContext = NO_CONTEXT) -> VisionTransformer:
    """A smaller dense network of the shape of ``build_pruned(candidate)``.

    Args:
        model: The trained dense network; not changed.
        candidate: Says how units are ranked and how many survive.
        context: What the ranking needs.
    """
    scores = RANKINGS[candidate.sparsity.method](model, context)
    return slice_network(model, choose(scores, candidate.widths))
