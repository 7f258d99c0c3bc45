"""Measured figures: MACs on the traced network, latency, throughput, memory, energy.

Two sides, which may be two machines: ``files`` makes what a runtime loads from a trained network; ``run`` measures
it, and needs nothing but that file, images and the runtime's own library.
"""

from vitsearch.profile.run import RUNTIMES, run_profile
from vitsearch.profile.runnable import Model, Runnable, Runtime, SampleImages

__all__ = ["RUNTIMES", "Model", "Runnable", "Runtime", "SampleImages", "run_profile"]
