"""Token reduction, structured pruning and quantisation of trained networks.

A candidate is compressed in a fixed order: tokens, then structure (followed by fine-tuning with tokens already
removed), then bits: calibration, and training through the quantisers where the candidate asks for it.
"""

from vitsearch.compress.assemble import assemble
from vitsearch.compress.quantize import calibrate, insert_quantizers, train_quantised
from vitsearch.compress.tokens import REDUCERS, TokenMeter, build_reducers, fit_reducers, metered, token_losses
from vitsearch.compress.weights import PRUNERS, PruneContext, prune

__all__ = [
    "PRUNERS",
    "REDUCERS",
    "PruneContext",
    "TokenMeter",
    "assemble",
    "build_reducers",
    "calibrate",
    "fit_reducers",
    "insert_quantizers",
    "metered",
    "prune",
    "token_losses",
    "train_quantised",
]
