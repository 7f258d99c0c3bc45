"""Simulated quantisation of weights and activations."""

from vitsearch.compress.quantize.apply import calibrate, insert_quantizers
from vitsearch.compress.quantize.calibration import CALIBRATIONS, Calibration
from vitsearch.compress.quantize.codes import QUANTIZERS, Codes, Quantizer, QuantizerBuilder
from vitsearch.compress.quantize.layers import ActivationQuantizer, QuantizedAttention, QuantizedProjection
from vitsearch.compress.quantize.training import train_quantised
from vitsearch.compress.quantize.uniform import channel_delta, quantize

__all__ = [
    "CALIBRATIONS",
    "QUANTIZERS",
    "ActivationQuantizer",
    "Calibration",
    "Codes",
    "QuantizedAttention",
    "QuantizedProjection",
    "Quantizer",
    "QuantizerBuilder",
    "calibrate",
    "channel_delta",
    "insert_quantizers",
    "quantize",
    "train_quantised",
]
