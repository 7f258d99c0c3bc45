"""Measured figures: MACs on the traced network, latency, throughput, memory."""

from vitsearch.profile.macs import count_macs
from vitsearch.profile.run import RUNTIMES, run_profile

__all__ = ["RUNTIMES", "count_macs", "run_profile"]
