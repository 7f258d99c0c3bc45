"""The bits of weights and activations."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.per_block import per_block
from vitsearch.config.base import Spec

WeightBits = Literal[1, 2, 3, 4, 5, 6, 7, 8, 16, 32]
ActivationBits = Literal[4, 5, 6, 7, 8, 16, 32]


class Precision(Spec):
    """Bit-widths of weights and activations.

    The patch projection has the bits of the first block, the classifier those of the last.

    Attributes:
        quantizer: The rule that maps values to codes; ignored at 16 and 32 bits.
        calibration: How activation ranges are chosen from calibration images.
        weight_bits: Bits of linear and convolution weights, for all blocks or per block.
        activation_bits: Bits of the operands of every MAC that are not weights, likewise.
    """

    quantizer: Literal["uniform"] = "uniform"
    calibration: Literal["minmax", "percentile", "mse"] = "minmax"
    weight_bits: WeightBits | tuple[WeightBits, ...] = 32
    activation_bits: ActivationBits | tuple[ActivationBits, ...] = 32

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if () in (self.weight_bits, self.activation_bits):
            raise ValueError("bits per block must not be empty; give one figure for each block")
        return self

    def resolved(self, architecture: Architecture) -> Precision:
        """The canonical form: one figure where all blocks agree, no calibration where nothing is calibrated."""
        weights = self.weight_bits_per_block(architecture.depth)
        activations = self.activation_bits_per_block(architecture.depth)
        calibrated = min(activations) < 16
        return Precision.model_validate(
            {
                "calibration": self.calibration if calibrated else "minmax",
                "weight_bits": weights[0] if len(set(weights)) == 1 else weights,
                "activation_bits": activations[0] if len(set(activations)) == 1 else activations,
            }
        )

    def weight_bits_per_block(self, depth: int) -> tuple[int, ...]:
        """Weight bits of block 1, ..., depth."""
        return per_block(self.weight_bits, 32, depth, "precision.weight_bits")

    def activation_bits_per_block(self, depth: int) -> tuple[int, ...]:
        """Activation bits of block 1, ..., depth."""
        return per_block(self.activation_bits, 32, depth, "precision.activation_bits")

    @property
    def is_float32(self) -> bool:
        """Whether nothing is quantised."""
        return self.weight_bits == 32 and self.activation_bits == 32
