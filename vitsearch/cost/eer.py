"""The Efficient Error Rate of Papa et al., *A survey on efficient vision transformers*, Eq. 26 and 28."""

from __future__ import annotations

from collections.abc import Mapping

from vitsearch.config import EerSpec, ReferenceSpec
from vitsearch.errors import InputError

DEFAULT_EER = EerSpec()


def eer_pct(values: Mapping[str, float], spec: EerSpec = DEFAULT_EER) -> float:
    """EER in percent of the reference; lower is better, the reference itself has 100.

    Unweighted (Eq. 26)::

        EER = 100 / |M| * sum_{i in M} m_i / M_i

    Weighted (Eq. 28), exactly as published, with weights that sum to 1; on a scale 1/|M| of Eq. 26, so never
    shown on one axis with it::

        EER_w = 100 / |M| * sum_{i in M} w_i * m_i / M_i

    Args:
        values: The candidate's figures: ``params`` (count), ``macs`` (count), ``bits``, ``size`` (MB),
            ``latency`` (ms), ``memory`` (MB), ``energy`` (mJ). More than the chosen ones may be given.
        spec: Chosen metrics, reference and weights.

    Raises:
        InputError: A chosen metric has no value.
    """
    missing = [metric for metric in spec.metrics if metric not in values]
    if missing:
        raise InputError(f"EER over {list(spec.metrics)} needs a value for {missing}", field="eer.metrics")
    ratios = [values[metric] / reference_value(spec.reference, metric) for metric in spec.metrics]
    weights = spec.weights or (1.0,) * len(ratios)
    return 100.0 * sum(w * r for w, r in zip(weights, ratios, strict=True)) / len(ratios)


def reference_value(reference: ReferenceSpec, metric: str) -> float:
    """The reference's figure in the units of ``eer_pct``'s values."""
    value = {
        "params": reference.params_m * 1e6,
        "macs": reference.flops_g * 1e9,
        "bits": reference.bits,
        "size": reference.size_mb,
        "latency": reference.latency_ms,
        "memory": reference.memory_mb,
        "energy": reference.energy_mj,
    }[metric]
    if value is None:
        raise InputError(f"the EER reference {reference.name!r} has no {metric}", field="eer.reference")
    return value
