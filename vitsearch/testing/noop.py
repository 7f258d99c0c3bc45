"""Trials and measurements that do nothing, for measuring and testing everything else."""

from __future__ import annotations

import os

from vitsearch.cost import cost_of
from vitsearch.messages import Conditions, Profile, ProfileRequest, TrialRequest, TrialResult, WorkerReport


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


def noop_profile(request: ProfileRequest) -> Profile:
    """A plausible measurement without any: latency follows MACs, memory follows parameters."""
    cost, target = cost_of(request.candidate), request.target
    latency_ms = 0.1 + 1e-6 * cost.num_macs
    return Profile(
        latency_ms_p50=latency_ms,
        latency_ms_p95=1.2 * latency_ms,
        latency_ms_spread=0.05,
        images_per_s=1000 * target.batch_size / latency_ms,
        peak_memory_mb=4e-6 * cost.num_params,
        file_size_mb=cost.size_mb,
        energy_mj=10 * latency_ms,
        conditions=Conditions(
            target=target.name,
            runtime="none",
            device="none",
            dtype="float32",
            batch_size=target.batch_size,
            threads=target.threads,
            warmup=target.warmup,
            repeats=target.repeats,
            contended=False,
        ),
    )


class NoopTrainer:
    """What an executor's trainer answers to, without data and without work; arguments are ignored."""

    def __init__(self, *args: object) -> None:
        pass

    def ping(self) -> int:
        """The process id."""
        return os.getpid()

    def run(self, request_json: str) -> str:
        """A no-op result, as JSON."""
        return noop_result(TrialRequest.model_validate_json(request_json)).model_dump_json()

    def report(self) -> str:
        """No epochs."""
        return WorkerReport().model_dump_json()

    def fastest_autocast(self, architecture_json: str, batch_size: int) -> str:  # noqa: ARG002
        """Plain float32."""
        return "fp32"
