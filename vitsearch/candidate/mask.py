"""How many weights of a linear layer a mask leaves."""

from __future__ import annotations

from typing import Literal

MaskName = Literal["none", "2:4", "unstructured"]
GROUP, KEPT_OF_GROUP = 4, 2


def non_zeros(mask: MaskName, zeros: float, outputs: int, inputs: int) -> int:
    """Weights of a layer that are not masked, known from its size alone.

    ``2:4`` keeps 2 of every 4 consecutive inputs of a row; a last group of fewer, as if filled up with zeros,
    keeps at most 2. ``unstructured`` masks floor(zeros * outputs * inputs).

    Args:
        mask: Its kind.
        zeros: The share of zeros of an unstructured mask.
        outputs: Rows of the weight.
        inputs: Its columns.
    """
    if mask == "2:4":
        groups, rest = divmod(inputs, GROUP)
        return outputs * (groups * KEPT_OF_GROUP + min(rest, KEPT_OF_GROUP))
    size = outputs * inputs
    return size - int(zeros * size + 1e-9) if mask == "unstructured" else size
