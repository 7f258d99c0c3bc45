"""What a candidate costs, known before training; and EER."""

from vitsearch.cost.eer import DEFAULT_EER, eer_pct
from vitsearch.cost.landmarks import Landmark, landmarks
from vitsearch.cost.macs import num_macs
from vitsearch.cost.params import num_params, size_mb
from vitsearch.cost.report import Cost, cost_of

__all__ = [
    "DEFAULT_EER",
    "Cost",
    "Landmark",
    "cost_of",
    "eer_pct",
    "landmarks",
    "num_macs",
    "num_params",
    "size_mb",
]
