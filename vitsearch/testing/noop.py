"""A trial that trains nothing, for measuring everything else."""

from __future__ import annotations

from vitsearch.cost import cost_of
from vitsearch.messages import TrialRequest, TrialResult


def noop_result(request: TrialRequest) -> TrialResult:
    """A plausible result without any work: accuracy rises with the logarithm of the MACs."""
    cost = cost_of(request.candidate)
    accuracy = min(0.99, 0.2 + 0.04 * cost.num_macs.bit_length() * (cost.bits / 32) ** 0.1)
    return TrialResult(
        trial=request.trial,
        accuracy=accuracy,
        loss=1 - accuracy,
        dense_accuracy=accuracy,
        split=request.split,
        epochs_run=0,
        train_s=0.0,
        total_s=0.0,
        num_params=cost.num_params,
    )
