"""Sizes that meet a budget of MACs, before a ranking has said which units are worth it."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from vitsearch.candidate.widths import BlockWidths


def products(widths: tuple[BlockWidths, ...], tokens: tuple[int, ...]) -> int:
    """MACs of all linear layers and attention products of the blocks, for one image.

    Args:
        widths: Sizes of each block.
        tokens: Tokens that enter block 1, ..., depth, and leave the last; as ``Candidate.token_counts``.
    """
    return sum(w.linear_macs(tokens[i], tokens[i + 1]) + w.attention_macs(tokens[i]) for i, w in enumerate(widths))


def least_ratio(dense: tuple[BlockWidths, ...], tokens: tuple[int, ...]) -> float:
    """The share of ``products`` that one head and one hidden unit in each block cost."""
    bare = tuple(replace(w, heads=1, mlp_units=1) for w in dense)
    return products(bare, tokens) / products(dense, tokens)


@lru_cache(maxsize=1024)
def even_widths(dense: tuple[BlockWidths, ...], tokens: tuple[int, ...], ratio: float) -> tuple[BlockWidths, ...]:
    """The same share of heads and of hidden units in every block, at ``ratio`` of the dense ``products``.

    Of all numbers of heads, the one nearest to that share for which hidden units can make up the difference to
    within the price of one. Where no number is, the most heads that the budget has room for beside all units.

    Args:
        dense: Sizes before pruning, the same in every block, class-attention blocks being such in both.
        tokens: As for ``products``.
        ratio: The share, in (0, 1].

    Raises:
        ValueError: It is less than ``least_ratio``.
    """
    blocks, first = range(len(dense)), dense[0]
    budget = ratio * products(dense, tokens)
    unit = [dense[i].unit_macs(tokens[i + 1]) for i in blocks]
    found: tuple[BlockWidths, ...] = ()
    for heads in sorted(range(1, first.heads + 1), key=lambda h: abs(h / first.heads - ratio)):
        bare = tuple(replace(w, heads=heads, mlp_units=0) for w in dense)
        left = budget - products(bare, tokens)
        units = int(left / sum(unit))
        if units < 1:
            continue
        counts = [min(units, first.mlp_units)] * len(dense)
        left -= counts[0] * sum(unit)
        for i in blocks:
            if unit[i] <= left and counts[i] < first.mlp_units:
                counts[i] += 1
                left -= unit[i]
        chosen = tuple(replace(w, mlp_units=count) for w, count in zip(bare, counts, strict=True))
        if units <= first.mlp_units:
            return chosen
        if not found or heads > found[0].heads:
            found = chosen
    if not found:
        raise ValueError(
            f"sparsity.macs_ratio must be at least {least_ratio(dense, tokens):.4f}, which one head and one "
            f"hidden unit in each block cost, but got {ratio:g}"
        )
    return found
