"""Token reduction, structured pruning and quantisation of trained networks.

A candidate is compressed in a fixed order: tokens, then structure (followed by fine-tuning with tokens already
removed), then bits: calibration, and training through the quantisers where the candidate asks for it.
"""

from vitsearch.compress.assemble import assemble
from vitsearch.compress.quantize import calibrate, insert_quantizers, train_quantised
from vitsearch.compress.tokens import REDUCERS, build_reducers
from vitsearch.compress.weights import PRUNERS, PruneContext, prune

__all__ = [
    "PRUNERS",
    "REDUCERS",
    "PruneContext",
    "assemble",
    "build_reducers",
    "calibrate",
    "insert_quantizers",
    "prune",
    "train_quantised",
]
