"""From a trained dense network to the candidate's smaller one."""

from __future__ import annotations

from dataclasses import replace

from vitsearch.candidate import PRUNERS, Candidate, products
from vitsearch.compress.tokens import build_reducers, fit_reducers, token_losses
from vitsearch.compress.weights.budget import widths_within
from vitsearch.compress.weights.context import PruneContext, Ranking
from vitsearch.compress.weights.schedule import steps_of
from vitsearch.compress.weights.slicing import choose, slice_network
from vitsearch.config.named import Imported
from vitsearch.models import VisionTransformer

RANKINGS: Imported[Ranking] = Imported(PRUNERS)
NO_CONTEXT = PruneContext()


def prune(model: VisionTransformer, candidate: Candidate, context: PruneContext = NO_CONTEXT) -> VisionTransformer:
    """A smaller dense network of the candidate's shape, fine-tuned, with its token reducers.

    Under ``macs_ratio`` the shape follows from the ranking, see ``widths_within``; otherwise it is that of
    ``build_pruned(candidate)``. Each step of the schedule ranks what is left, slices, and fine-tunes with tokens
    already removed.

    Args:
        model: The trained dense network; not changed.
        candidate: Says how units are ranked and how many survive, in how many steps.
        context: What the ranking and the fine-tuning need.
    """
    dense_model = model
    rank, ratio = RANKINGS[candidate.sparsity.method], candidate.sparsity.macs_ratio
    dense, tokens = model.widths, candidate.budget_counts
    for step in steps_of(candidate, candidate.widths, context.epochs):
        ranked = rank(model, replace(context, epochs=step.epochs))
        widths = step.widths
        if ratio is not None:
            budget = (1 - step.share * (1 - ratio)) * products(dense, tokens)
            widths = widths_within(budget, ranked.scores, ranked.model.widths, tokens)
        kept = choose(ranked.scores, widths, candidate.architecture.share_blocks)
        model = slice_network(ranked.model, kept)
        model.set_reducers(build_reducers(candidate, widths[0].width))
        if context.batches:
            fit_reducers(model, candidate, context.batches[0][0])
        if step.epochs > ranked.epochs:
            with token_losses(model, candidate, dense_model) as terms:
                context.train(model, step.epochs - ranked.epochs, terms)
    return model
