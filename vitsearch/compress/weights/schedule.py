"""Pruning in several steps, each followed by its share of the fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vitsearch.candidate import LEARNING_EPOCHS, LEARNING_PRUNERS, BlockWidths, Candidate


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a schedule.

    Attributes:
        share: How much of what pruning takes in the end is gone after it, f(i / n).
        widths: Sizes of every block after it.
        epochs: Epochs of training that belong to it.
    """

    share: float
    widths: tuple[BlockWidths, ...]
    epochs: int


def steps_of(candidate: Candidate, widths: Sequence[BlockWidths], epochs: int) -> list[Step]:
    """The steps to the final ``widths``.

    After step i of n a unit kind has lost the share f(i / n) of what it loses in the end, rounded: f(t) = t for
    ``linear``, f(t) = 1 - (1 - t)^3 for ``cubic`` (Zhu and Gupta, 2017, *To Prune, or Not to Prune*, Eq. 1), which
    prunes most while much is left. Whole blocks go in the first step. Of E epochs step i has
    floor(i E / n) - floor((i - 1) E / n); a step without any would be followed by another at once, so there are no
    more steps than epochs, and half as many where the ranking learns: one to learn in, one to fine-tune in.

    Args:
        candidate: Says how many steps, and the shape of the curve.
        widths: The sizes after the last.
        epochs: Epochs there are for all of them.
    """
    sparsity, a = candidate.sparsity, candidate.architecture
    least = LEARNING_EPOCHS if sparsity.method in LEARNING_PRUNERS else 1
    n = max(1, min(sparsity.steps, epochs // least))
    found = []
    for i in range(1, n + 1):
        share = i / n if sparsity.schedule == "linear" else 1 - (1 - i / n) ** 3

        def left(available: int, kept: int, share: float = share) -> int:
            return available - round(share * (available - kept))

        found.append(
            Step(
                share=share,
                widths=tuple(
                    replace(
                        w,
                        width=left(a.width, w.width),
                        heads=left(a.heads, w.heads),
                        qk_dim=left(a.head_dim, w.qk_dim),
                        v_dim=left(a.head_dim, w.v_dim),
                        mlp_units=left(a.mlp_units, w.mlp_units),
                    )
                    for w in widths
                ),
                epochs=i * epochs // n - (i - 1) * epochs // n,
            )
        )
    return found
