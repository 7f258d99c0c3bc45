"""Token reduction, structured pruning and quantisation of trained networks.

A candidate is compressed in a fixed order: tokens, then structure (followed by fine-tuning with tokens already
removed), then bits.
"""

from vitsearch.compress.assemble import assemble
from vitsearch.compress.quantize import calibrate, insert_quantizers
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
]
