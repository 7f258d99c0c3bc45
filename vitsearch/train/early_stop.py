"""When further training cannot pay."""

from __future__ import annotations

from collections.abc import Sequence

MIN_SHARE_OF_EPOCHS = 1 / 3
MARGIN = 0.02


def plausible_final_accuracy(history: Sequence[float], epochs: int) -> float:
    """An optimistic forecast of the accuracy after ``epochs``.

    Learning curves flatten, so the slope of the recent third, kept up until the end, bounds what is plausible::

        a_best + max(0, (a_t - a_{t-k}) / k) * (epochs - t) + margin,   k = max(1, t // 3)

    Args:
        history: Validation accuracy after epoch 1, ..., t.
        epochs: Planned epochs.
    """
    t = len(history)
    k = max(1, t // 3)
    earlier = history[t - k - 1] if t > k else 0.0
    slope = max(0.0, (history[-1] - earlier) / k)
    return min(1.0, max(history) + slope * (epochs - t) + MARGIN)


def out_of_reach(history: Sequence[float], epochs: int, accuracy_to_beat: float | None) -> bool:
    """Whether the run can end: a third is done and even the optimistic forecast does not beat the incumbent."""
    if accuracy_to_beat is None or len(history) < max(2, MIN_SHARE_OF_EPOCHS * epochs):
        return False
    return plausible_final_accuracy(history, epochs) <= accuracy_to_beat
