"""One ranking for the whole network: which heads and hidden units are worth a budget of MACs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from vitsearch.candidate import BlockWidths, products
from vitsearch.compress.weights.units import Units

TOLERANCE = 0.01


def widths_within(
    budget: float,
    scores: Units,
    widths: Sequence[BlockWidths],
    tokens: Sequence[int],
    *,
    across_kinds: bool = False,
) -> tuple[BlockWidths, ...]:
    """The sizes left when the least of all heads and hidden units go, one by one, until the rest costs ``budget``.

    A score counts relative to the mean of its kind over the network, s_u / mean(s), so that heads and units can be
    compared; as it is where they can be already. Each block keeps a head and a unit. A unit or head that would
    overshoot the budget by more than 1 % stays, and the next goes in its place; only where none is small enough,
    the rest costs less than that.

    Args:
        budget: Of ``products``, in MACs of one image.
        scores: Of the units there are now.
        widths: Sizes now.
        tokens: Tokens that enter block 1, ..., depth, and leave the last.
        across_kinds: Whether heads and units compare as they are.
    """
    left = list(widths)
    cost = products(tuple(left), tuple(tokens))
    order = _from_the_least(scores, across_kinds=across_kinds)
    for floor in ((1 - TOLERANCE) * budget, 0.0):
        for block, is_head in order:
            w = left[block]
            saved = w.head_macs(tokens[block]) if is_head else w.unit_macs(tokens[block + 1])
            count = w.heads if is_head else w.mlp_units
            if cost <= budget:
                return tuple(left)
            if count > 1 and cost - saved >= floor:
                left[block] = replace(w, heads=count - 1) if is_head else replace(w, mlp_units=count - 1)
                cost -= saved
    return tuple(left)


def _from_the_least(scores: Units, *, across_kinds: bool) -> list[tuple[int, bool]]:
    """The block of every unit, and whether it is a head, by relative score; equal ones in the order of blocks."""
    entries: list[tuple[float, int, bool]] = []
    for is_head in (True, False):
        figures = [block.heads_H if is_head else block.mlp_units_M for block in scores.blocks]
        mean = 1.0 if across_kinds else float(torch.cat(figures).mean()) or 1.0
        for block, one in enumerate(figures):
            entries += [(value / mean, block, is_head) for value in one.tolist()]
    return [(block, is_head) for _, block, is_head in sorted(entries)]
