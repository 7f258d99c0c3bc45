"""The bits of weights and activations, and the rules that map values to codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.per_block import check_shared, per_block
from vitsearch.config.base import Spec
from vitsearch.config.named import KeyOf


@dataclass(frozen=True, kw_only=True)
class QuantizerKind:
    """A rule that maps values to codes.

    Attributes:
        build: Where the function is that makes its ``Quantizer``.
        calibration: How its ranges are chosen where a candidate does not say.
        own_weights: At which bits its weights have other codes than those of ``uniform``.
        least_activation_bits: The fewest bits its activations can have.
    """

    build: str
    calibration: str = "minmax"
    own_weights: frozenset[int] = frozenset()
    least_activation_bits: int = 4


@dataclass(frozen=True, kw_only=True)
class CalibrationKind:
    """A way to choose ranges from calibration images.

    Attributes:
        run: Where its ``Calibration`` is.
        sets_weights: Whether it chooses the steps of weights too.
    """

    run: str
    sets_weights: bool = False


MOST_CODED_BITS = 8
"""Weights of more bits are stored as floats."""
ANY_BITS = frozenset(range(1, MOST_CODED_BITS + 1))

QUANTIZERS: dict[str, QuantizerKind] = {
    "uniform": QuantizerKind(build="vitsearch.compress.quantize.uniform:build_uniform"),
    "asymmetric": QuantizerKind(
        build="vitsearch.compress.quantize.asymmetric:build_asymmetric", own_weights=ANY_BITS
    ),
    "auto_vit_acc": QuantizerKind(
        build="vitsearch.compress.quantize.auto_vit_acc:build_auto_vit_acc", own_weights=frozenset(range(3, 9))
    ),
    "binary": QuantizerKind(
        build="vitsearch.compress.quantize.binary:build_binary",
        calibration="mse",
        own_weights=frozenset({1}),
        least_activation_bits=1,
    ),
    "mpq": QuantizerKind(build="vitsearch.compress.quantize.mpq:build_mpq", calibration="blockwise"),
    "repq": QuantizerKind(build="vitsearch.compress.quantize.repq:build_repq", own_weights=ANY_BITS),
    "ternary": QuantizerKind(
        build="vitsearch.compress.quantize.ternary:build_ternary", own_weights=frozenset({2})
    ),
    "twin": QuantizerKind(build="vitsearch.compress.quantize.twin:build_twin", calibration="hessian"),
}
CALIBRATIONS: dict[str, CalibrationKind] = {
    "minmax": CalibrationKind(run="vitsearch.compress.quantize.calibration.local:minmax"),
    "percentile": CalibrationKind(run="vitsearch.compress.quantize.calibration.local:percentile"),
    "mse": CalibrationKind(run="vitsearch.compress.quantize.calibration.local:mse"),
    "blockwise": CalibrationKind(run="vitsearch.compress.quantize.calibration.blockwise:blockwise"),
    "hessian": CalibrationKind(run="vitsearch.compress.quantize.calibration.hessian:hessian", sets_weights=True),
    "hessian_full": CalibrationKind(
        run="vitsearch.compress.quantize.calibration.hessian:hessian_full", sets_weights=True
    ),
}

QuantizerName = Annotated[str, KeyOf(QUANTIZERS)]
CalibrationName = Annotated[str, KeyOf(CALIBRATIONS)]
WeightBits = Literal[1, 2, 3, 4, 5, 6, 7, 8, 16, 32]
ActivationBits = Literal[1, 4, 5, 6, 7, 8, 16, 32]
QuantizedTraining = Literal["none", "ste", "lsq"]


class Precision(Spec):
    """Bit-widths of weights and activations.

    The patch projection has the bits of the first block, the classifier those of the last.

    Attributes:
        quantizer: The rule that maps values to codes, a name in ``QUANTIZERS``; ignored at 16 and 32 bits.
        calibration: How ranges are chosen from calibration images, a name in ``CALIBRATIONS``; what suits the
            quantiser when left out.
        weight_bits: Bits of linear and convolution weights, for all blocks or per block.
        activation_bits: Bits of the operands of every MAC that are not weights, likewise; one bit only under
            ``binary``.
        noisy: Whether a fixed noise is added to the inputs of linear layers before they are quantised, and
            subtracted after (NoisyQuant); goes with any quantiser.
        mixed: Whether blocks of equal shape share their ``weight_bits`` of 8 or fewer out among each other, by
            sensitivity, once the network is trained: their mean stays. The first and the last block keep theirs.
        training: Whether the calibrated network is trained through its quantisers, for ``train.qat_epochs``:
            ``none``; ``ste`` in the ranges found; ``lsq`` learns the steps too, where codes are multiples of one
            (all but the softmax and GELU outputs of ``twin`` and the tokens of ``ternary``, which go as in
            ``ste``).
    """

    quantizer: QuantizerName = "uniform"
    calibration: CalibrationName = "minmax"
    weight_bits: WeightBits | tuple[WeightBits, ...] = 32
    activation_bits: ActivationBits | tuple[ActivationBits, ...] = 32
    noisy: bool = False
    mixed: bool = False
    training: QuantizedTraining = "none"

    @model_validator(mode="before")
    @classmethod
    def _usual_calibration(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "calibration" in data or data.get("quantizer") not in list(QUANTIZERS):
            return data  # the field itself says what is wrong with the name
        return {**data, "calibration": QUANTIZERS[data["quantizer"]].calibration}

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if () in (self.weight_bits, self.activation_bits):
            raise ValueError("bits per block must not be empty; give one figure for each block")
        activations = self.activation_bits if isinstance(self.activation_bits, tuple) else (self.activation_bits,)
        if min(activations) < QUANTIZERS[self.quantizer].least_activation_bits:
            able = [n for n, kind in QUANTIZERS.items() if kind.least_activation_bits <= min(activations)]
            raise ValueError(
                f"precision.activation_bits must be at least {QUANTIZERS[self.quantizer].least_activation_bits} "
                f"under quantizer {self.quantizer}, but got {min(activations)}; "
                f"choose quantizer {' or '.join(able)}, or more bits"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Fields younger than the first studies are left out at their default: a candidate keeps its hash."""
        data: dict[str, Any] = handler(self)
        if not self.noisy:
            data.pop("noisy", None)
        if not self.mixed:
            data.pop("mixed", None)
        if self.training == "none":
            data.pop("training", None)
        return data

    def resolved(self, architecture: Architecture, equal_blocks: Sequence[Sequence[int]] = ()) -> Precision:
        """The canonical form: one figure where all blocks agree, no calibration where nothing is calibrated.

        Args:
            architecture: Of the blocks that are left.
            equal_blocks: Indices of those that may share their bits out, group by group; of blocks that share
                their weights, the first.

        Raises:
            ValueError: Blocks that share their weights differ in bits, or a tuple does not fit the depth.
        """
        weights = self.weight_bits_per_block(architecture.depth)
        check_shared(weights, architecture.share_blocks, "precision.weight_bits")
        pools = bit_pools(weights, equal_blocks) if self.mixed else ()
        for pool in pools:
            weights = pool.shared_out(weights, pool.even, architecture.share_blocks)
        activations = self.activation_bits_per_block(architecture.depth)
        check_shared(activations, architecture.share_blocks, "precision.activation_bits")
        calibrated = min(activations) < 16
        possible = ANY_BITS.union(weights) if pools else weights
        coded = calibrated or not QUANTIZERS[self.quantizer].own_weights.isdisjoint(possible)
        ranged = calibrated or (min(weights) < 16 and CALIBRATIONS[self.calibration].sets_weights)
        return Precision.model_validate(
            {
                "quantizer": self.quantizer if coded else "uniform",
                "calibration": self.calibration if ranged else "minmax",
                "weight_bits": weights[0] if len(set(weights)) == 1 else weights,
                "activation_bits": activations[0] if len(set(activations)) == 1 else activations,
                "noisy": self.noisy and calibrated,
                "mixed": bool(pools),
                "training": self.training if calibrated or min(weights) < 16 else "none",
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


@dataclass(frozen=True, kw_only=True)
class BitPool:
    """Weight bits that some blocks of one shape have together, to be shared out among them.

    Attributes:
        blocks: Their indices; of blocks that share their weights, the first.
        total: The sum of their bits.
    """

    blocks: tuple[int, ...]
    total: int

    @property
    def even(self) -> tuple[int, ...]:
        """The bits of each block where all get the same, or the first ones a bit more."""
        each, more = divmod(self.total, len(self.blocks))
        return tuple(each + (place < more) for place in range(len(self.blocks)))

    def shared_out(self, figures: Sequence[int], bits: Sequence[int], share_blocks: int) -> tuple[int, ...]:
        """Figures of all blocks, those of the pool replaced.

        Args:
            figures: One per block of the network.
            bits: One per block of the pool.
            share_blocks: How many consecutive blocks share their weights.
        """
        found = list(figures)
        for block, figure in zip(self.blocks, bits, strict=True):
            found[block : block + share_blocks] = [figure] * share_blocks
        return tuple(found)


def bit_pools(figures: Sequence[int], equal_blocks: Sequence[Sequence[int]]) -> tuple[BitPool, ...]:
    """What ``mixed`` may share out: where one block could have a bit more and another one less.

    Args:
        figures: Weight bits of each block; those of 16 and 32 bits keep them.
        equal_blocks: As ``Precision.resolved`` takes them.
    """
    pools = []
    for group in equal_blocks:
        blocks = tuple(block for block in group if figures[block] <= MOST_CODED_BITS)
        total = sum(figures[block] for block in blocks)
        if len(blocks) > 1 and len(blocks) < total < MOST_CODED_BITS * len(blocks):
            pools.append(BitPool(blocks=blocks, total=total))
    return tuple(pools)
