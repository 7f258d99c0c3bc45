"""From a trained dense network to the candidate's smaller one."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import nn

from vitsearch.candidate import PRUNERS, BlockWidths, Candidate, products
from vitsearch.compress.tokens import build_reducers, fit_reducers, token_losses
from vitsearch.compress.weights.budget import widths_within
from vitsearch.compress.weights.context import PruneContext, Ranking
from vitsearch.compress.weights.mask import hold_zeros, masked
from vitsearch.compress.weights.schedule import steps_of
from vitsearch.compress.weights.slicing import choose, slice_network
from vitsearch.config.named import Imported
from vitsearch.models import VisionTransformer

RANKINGS: Imported[Ranking] = Imported(PRUNERS)
NO_CONTEXT = PruneContext()


def prune(model: VisionTransformer, candidate: Candidate, context: PruneContext = NO_CONTEXT) -> VisionTransformer:
    """A smaller network of the candidate's shape, fine-tuned, with its token reducers and its zeros.

    Under ``macs_ratio`` the shape follows from the ranking, see ``widths_within``; otherwise it is that of
    ``build_pruned(candidate)``. Each step of the schedule ranks what is left, slices, masks, and fine-tunes with
    tokens already removed and zeros held.

    Args:
        model: The trained dense network; not changed.
        candidate: Says how units are ranked and how many survive, in how many steps.
        context: What the ranking and the fine-tuning need.
    """
    dense_model, sparsity = model, candidate.sparsity
    dense, tokens = model.widths, candidate.budget_counts
    if sparsity.method == "none":
        model = copy.deepcopy(model)
    for step in steps_of(candidate, candidate.widths, context.epochs):
        spent, before = 0, model
        if sparsity.method != "none":
            budget = None
            if sparsity.macs_ratio is not None:
                budget = (1 - step.share * (1 - sparsity.macs_ratio)) * products(dense, tokens)
            share = _share_left(model.widths, step.widths, tokens, budget)
            ranked = RANKINGS[sparsity.method](
                model, replace(context, epochs=step.epochs, tokens=tokens, macs_share=share)
            )
            widths, spent = step.widths, ranked.epochs
            if budget is not None:
                widths = widths_within(
                    budget, ranked.scores, ranked.model.widths, tokens, across_kinds=ranked.across_kinds
                )
            kept = choose(ranked.scores, widths, candidate.architecture.share_blocks)
            model = slice_network(ranked.model, kept)
        reducers = build_reducers(candidate, model.widths[0].width)
        _keep_learning(reducers, before)
        model.set_reducers(reducers)
        if context.batches:
            fit_reducers(model, candidate, context.batches[0][0])
        with masked(model, sparsity, step.share):
            if step.epochs > spent:
                with token_losses(model, candidate, dense_model) as terms:
                    context.train(model, step.epochs - spent, terms)
    if sparsity.mask != "none":
        hold_zeros(model)
    return model


def _keep_learning(reducers: Mapping[int, object], before: VisionTransformer) -> None:
    """What reducers have learned in the step before; those that see fewer channels now begin anew."""
    for number, reducer in reducers.items():
        old = before.blocks[number - 1].reducer
        if not (isinstance(reducer, nn.Module) and isinstance(old, nn.Module)):
            continue
        learned, fresh = old.state_dict(), reducer.state_dict()
        if all(learned[name].shape == value.shape for name, value in fresh.items()):
            reducer.load_state_dict(learned)


def _share_left(
    now: Sequence[BlockWidths], then: Sequence[BlockWidths], tokens: tuple[int, ...], budget: float | None
) -> float:
    """The share of ``products`` that is left when heads and hidden units have gone, in blocks that stay."""
    staying = tuple(now[: len(then)])
    whole = products(staying, tokens)
    if budget is None:
        fewer = tuple(
            replace(w, heads=min(w.heads, t.heads), mlp_units=min(w.mlp_units, t.mlp_units))
            for w, t in zip(staying, then, strict=True)
        )
        budget = products(fewer, tokens)
    return min(1.0, budget / whole)
