"""What training is followed by: structured pruning and quantisation."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vitsearch.candidate.architecture import Architecture
from vitsearch.config.base import Spec
from vitsearch.config.named import KeyOf

# Structured pruning: one line for each ranking, with its ``Pruner``.
PRUNERS: dict[str, str] = {"magnitude": "vitsearch.compress.weights.magnitude:prune_magnitude"}
PrunerName = Annotated[str, KeyOf(PRUNERS, others=("none",))]

WeightBits = Literal[1, 2, 3, 4, 5, 6, 7, 8, 16, 32]
ActivationBits = Literal[4, 5, 6, 7, 8, 16, 32]
Count = Annotated[int, Field(ge=1)]


class Sparsity(Spec):
    """How many MLP units and attention heads of each block survive structured pruning.

    Attributes:
        method: How units are ranked, a name in ``PRUNERS``; ``none`` keeps all.
        mlp_units: Units kept, one figure for all blocks or one per block; all when left out.
        heads: Heads kept, likewise.
    """

    method: PrunerName = "none"
    mlp_units: Count | tuple[Count, ...] | None = None
    heads: Count | tuple[Count, ...] | None = None

    def resolved(self, architecture: Architecture) -> Sparsity:
        """The canonical form; plain ``Sparsity()`` when nothing is pruned.

        Raises:
            ValueError: More units are kept than exist, or a tuple is not ``depth`` long.
        """
        kept_units = self.mlp_units_per_block(architecture)
        kept_heads = self.heads_per_block(architecture)
        for what, kept, available in (
            ("mlp_units", kept_units, architecture.mlp_units),
            ("heads", kept_heads, architecture.heads),
        ):
            if max(kept) > available:
                raise ValueError(f"sparsity.{what} must be at most {available}, but got {max(kept)}")
        if min(kept_units) == architecture.mlp_units and min(kept_heads) == architecture.heads:
            return Sparsity()
        if self.method == "none":
            raise ValueError(
                f"sparsity.method must be named when units are pruned; choose {KeyOf(PRUNERS).expected}"
            )
        return Sparsity(
            method=self.method,
            mlp_units=_collapsed(kept_units, architecture.mlp_units),
            heads=_collapsed(kept_heads, architecture.heads),
        )

    def mlp_units_per_block(self, architecture: Architecture) -> tuple[int, ...]:
        """Units kept in block 1, ..., depth."""
        return per_block(self.mlp_units, architecture.mlp_units, architecture.depth, "sparsity.mlp_units")

    def heads_per_block(self, architecture: Architecture) -> tuple[int, ...]:
        """Heads kept in block 1, ..., depth."""
        return per_block(self.heads, architecture.heads, architecture.depth, "sparsity.heads")


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


def per_block(value: int | tuple[int, ...] | None, default: int, depth: int, name: str) -> tuple[int, ...]:
    """One figure per block.

    Raises:
        ValueError: ``value`` is a tuple of another length than ``depth``.
    """
    if isinstance(value, tuple):
        if len(value) != depth:
            raise ValueError(f"{name} must have one figure per block, but got {len(value)} for depth={depth}")
        return value
    return (default if value is None else value,) * depth


def _collapsed(kept: tuple[int, ...], available: int) -> int | tuple[int, ...] | None:
    if len(set(kept)) > 1:
        return kept
    return None if kept[0] == available else kept[0]
