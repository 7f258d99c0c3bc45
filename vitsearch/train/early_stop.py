"""When further training cannot pay."""

from __future__ import annotations

from collections.abc import Sequence

MIN_SHARE_OF_EPOCHS = 1 / 3
MARGIN = 0.02


def plausible_final_accuracy(history: Sequence[float], epochs: int) -> float:
    """An optimistic forecast of the accuracy after ``epochs``.

    Learning curves flatten, so the slope of the recent third, kept up until the end, bounds what is plausible. The
    slope is that of the best accuracy so far, b, which one noisy epoch cannot turn down::

        b_t + (b_t - b_{t-k}) / k * (epochs - t) + margin,   k = max(2, t // 3)

    Args:
        history: Validation accuracy after epoch 1, ..., t.
        epochs: Planned epochs, those of fine-tuning included.
    """
    t = len(history)
    k = max(2, t // 3)
    slope = (max(history) - max(history[: max(0, t - k)], default=0.0)) / min(k, t)
    return min(1.0, max(history) + slope * (epochs - t) + MARGIN)


def out_of_reach(history: Sequence[float], epochs: int, accuracy_to_beat: float | None) -> bool:
    """Whether the run can end: a third is done and even the optimistic forecast does not beat the incumbent."""
    if accuracy_to_beat is None or len(history) < max(2, MIN_SHARE_OF_EPOCHS * epochs):
        return False
    return plausible_final_accuracy(history, epochs) <= accuracy_to_beat
