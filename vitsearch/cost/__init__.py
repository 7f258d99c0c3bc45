"""What a candidate costs, known before training; and EER."""

from vitsearch.cost.eer import DEFAULT_EER, eer_pct
from vitsearch.cost.landmarks import Landmark, landmarks
from vitsearch.cost.macs import Tokens, num_macs
from vitsearch.cost.params import num_params, size_mb
from vitsearch.cost.report import Cost, cost_kind, cost_of, measured_cost

__all__ = [
    "DEFAULT_EER",
    "Cost",
    "Landmark",
    "Tokens",
    "cost_kind",
    "cost_of",
    "eer_pct",
    "landmarks",
    "measured_cost",
    "num_macs",
    "num_params",
    "size_mb",
]
