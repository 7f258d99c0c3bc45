"""Measured figures: MACs on the traced network, latency, throughput, memory."""

from vitsearch.profile.macs import count_macs
from vitsearch.profile.run import RUNTIMES, executes, run_profile
from vitsearch.profile.runnable import Runnable, Runtime

__all__ = ["RUNTIMES", "Runnable", "Runtime", "count_macs", "executes", "run_profile"]
