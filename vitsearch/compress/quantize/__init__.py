"""Simulated quantisation of weights and activations."""

from vitsearch.compress.quantize.apply import calibrate, insert_quantizers
from vitsearch.compress.quantize.layers import ActivationQuantizer, QuantizedAttention, QuantizedProjection
from vitsearch.compress.quantize.uniform import channel_delta, observed_delta, quantize

__all__ = [
    "ActivationQuantizer",
    "QuantizedAttention",
    "QuantizedProjection",
    "calibrate",
    "channel_delta",
    "insert_quantizers",
    "observed_delta",
    "quantize",
]
