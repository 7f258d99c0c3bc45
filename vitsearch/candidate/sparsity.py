"""What pruning leaves of each block."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.mask import MaskName, non_zeros
from vitsearch.candidate.per_block import check_shared, per_block
from vitsearch.candidate.widths import BlockWidths
from vitsearch.config.base import Spec
from vitsearch.config.named import KeyOf

# Structured pruning: one line for each ranking, with its ``Ranking``.
PRUNERS: dict[str, str] = {
    "magnitude": "vitsearch.compress.weights.magnitude:rank_magnitude",
    "random": "vitsearch.compress.weights.chance:rank_random",
    "taylor": "vitsearch.compress.weights.taylor:rank_taylor",
    "nvit": "vitsearch.compress.weights.nvit:rank_nvit",
    "vtp": "vitsearch.compress.weights.vtp:rank_vtp",
    "xpruner": "vitsearch.compress.weights.xpruner:rank_xpruner",
    "wdpruning": "vitsearch.compress.weights.wdpruning:rank_wdpruning",
}
# Those that learn in the first half of the fine-tuning epochs.
LEARNING_PRUNERS = frozenset({"vtp", "xpruner", "wdpruning"})
LEARNING_EPOCHS = 2  # one of them at least to learn in, one to fine-tune in
PrunerName = Annotated[str, KeyOf(PRUNERS, others=("none",))]

Count = Annotated[int, Field(ge=1)]
LATER_DEFAULTS: dict[str, object] = {
    "qk_dim": None, "v_dim": None, "width": None, "blocks": None, "macs_ratio": None, "steps": 1,
    "schedule": "linear", "mask": "none", "zeros": 0.5,
}  # fmt: skip


class Sparsity(Spec):
    """How much of the dense network survives pruning: which units stay, and which of their weights are not zero.

    The ranking decides which blocks, channels, heads, dimensions and units stay; their numbers stand here, so that
    cost is known before anything is trained. Figures per block are those of the blocks that survive, in order:
    with ``blocks: 9`` a tuple holds nine. The same goes for token reducers and bit-widths beside it.

    Attributes:
        method: How units are ranked, a name in ``PRUNERS``; ``none`` keeps all.
        mlp_units: MLP units kept, one figure for all blocks or one per block; all when left out.
        heads: Heads kept, likewise.
        qk_dim: Dimensions kept of the queries and keys of each head, likewise; each head keeps its own. Logits
            keep their scale, one over the root of the dense head's width.
        v_dim: Dimensions kept of the values of each head, likewise.
        width: Embedding channels kept, the same ones in the whole network. LayerNorms average over them alone.
        blocks: Blocks kept.
        macs_ratio: Instead of all these, the share of the MACs of the blocks' linear layers and attention products
            that is left. The ranking decides over all blocks together which heads and MLP units are worth it.
            A mask comes on top of it.
        steps: In how many steps pruning goes, each with its share of the fine-tuning epochs; no more than these,
            and half as many where the ranking learns.
        schedule: How the share pruned grows over the steps: ``linear``, or ``cubic``, most of it at first.
        mask: Zeros among the weights of the blocks' linear layers, after units have gone: ``2:4`` (of every four
            consecutive inputs of a row the two of least magnitude) or ``unstructured`` (of each layer, the weights
            of least magnitude). They count in MACs alone, which are then those of the other weights; shapes,
            parameters, size and latency stay those of the dense layers.
        zeros: The share of zeros of an unstructured mask, the same in every layer.
    """

    method: PrunerName = "none"
    mlp_units: Count | tuple[Count, ...] | None = None
    heads: Count | tuple[Count, ...] | None = None
    qk_dim: Count | tuple[Count, ...] | None = None
    v_dim: Count | tuple[Count, ...] | None = None
    width: Count | None = None
    blocks: Count | None = None
    macs_ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    steps: Annotated[int, Field(ge=1, le=100)] = 1
    schedule: Literal["linear", "cubic"] = "linear"
    mask: MaskName = "none"
    zeros: Annotated[float, Field(ge=0, lt=1)] = 0.5

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Fields younger than the first studies are left out at their default: a candidate keeps its hash."""
        data: dict[str, Any] = handler(self)
        return {
            name: value
            for name, value in data.items()
            if name not in LATER_DEFAULTS or value != LATER_DEFAULTS[name]
        }

    def resolved(self, architecture: Architecture) -> Sparsity:
        """The canonical form; plain ``Sparsity()`` when nothing is pruned.

        Raises:
            ValueError: More units are kept than exist, a tuple is not as long as blocks are kept, blocks that
                share their weights differ, or class-attention blocks are all that is left.
        """
        a = architecture
        kept: dict[str, float | tuple[int, ...] | None] = {}
        for name, available in (("width", a.width), ("blocks", a.depth)):
            value = getattr(self, name)
            _check(name, value or 1, available)
            kept[name] = None if value == available else value
        self._check_blocks(a)
        kept_blocks = self.widths(a)
        for name, available in (
            ("mlp_units", a.mlp_units),
            ("heads", a.heads),
            ("qk_dim", a.head_dim),
            ("v_dim", a.head_dim),
        ):
            counts = tuple(getattr(block, name) for block in kept_blocks)
            _check(name, max(counts), available)
            check_shared(counts, a.share_blocks, f"sparsity.{name}")
            kept[name] = _collapsed(counts, available)
        alone = all(value is None for value in kept.values())
        if self.macs_ratio is not None and self.macs_ratio < 1:
            if not alone:
                raise ValueError(
                    "sparsity.macs_ratio decides itself how much stays, but got "
                    f"{', '.join(name for name, value in kept.items() if value is not None)} beside it; remove one"
                )
            kept["macs_ratio"] = self.macs_ratio
            alone = False
        mask = "none" if self.mask == "unstructured" and not self.zeros else self.mask
        masking = {"mask": mask, "zeros": self.zeros if mask == "unstructured" else LATER_DEFAULTS["zeros"]}
        if alone and mask == "none":
            return Sparsity()
        if self.method == "none" and not alone:
            raise ValueError(
                f"sparsity.method must be named when units are pruned; choose {KeyOf(PRUNERS).expected}"
            )
        steps = 1 if alone and mask != "unstructured" else self.steps
        return Sparsity.model_validate(
            {
                "method": "none" if alone else self.method,
                **kept,
                **masking,
                "steps": steps,
                "schedule": self.schedule if steps > 1 else "linear",
            }
        )

    @property
    def prunes(self) -> bool:
        """Whether units go or weights become zero."""
        return self.method != "none" or self.mask != "none"

    def linear_macs(self, widths: BlockWidths, num_tokens: Any, num_tokens_out: Any) -> Any:
        """MACs of a block's linear layers with the weights that are not zero.

        Without a mask, those of ``BlockWidths.linear_macs``. Each layer loses a number of weights that follows
        from its size. A magnitude threshold over the whole network would let trained weights decide how many zeros
        go to layers that see many tokens and how many to those that see few, and MACs could not be known before
        training.

        Args:
            widths: The block's sizes.
            num_tokens: Tokens that enter it, N; an array where images decide.
            num_tokens_out: Tokens in its MLP, N'.
        """
        if self.mask == "none":
            return widths.linear_macs(num_tokens, num_tokens_out)
        w = widths

        def left(outputs: int, inputs: int) -> int:
            return non_zeros(self.mask, self.zeros, outputs, inputs)

        mlp = left(w.mlp_units, w.width) + left(w.width, w.mlp_units)
        if w.class_tokens:  # queries have a layer of their own
            read = (num_tokens + w.class_tokens) * left(w.qk_width + w.v_width, w.width)
            return read + w.class_tokens * (left(w.qk_width, w.width) + left(w.width, w.v_width) + mlp)
        attention = left(2 * w.qk_width + w.v_width, w.width) + left(w.width, w.v_width)
        mixing = 2 * num_tokens**2 * w.heads**2 if w.mixes_heads else 0
        return num_tokens * attention + mixing + num_tokens_out * mlp

    def _check_blocks(self, a: Architecture) -> None:
        if self.blocks is not None and self.blocks % a.share_blocks:
            raise ValueError(
                f"sparsity.blocks must be a multiple of architecture.share_blocks, but got blocks={self.blocks}, "
                f"share_blocks={a.share_blocks}; choose {max(1, self.blocks // a.share_blocks) * a.share_blocks}"
            )
        if self.blocks is not None and self.blocks <= a.class_attention_blocks:
            raise ValueError(
                f"sparsity.blocks must keep a block before the class-attention blocks, which all stay, but got "
                f"blocks={self.blocks}; choose at least {a.class_attention_blocks + 1}"
            )
        if self.macs_ratio is not None and self.macs_ratio < 1 and a.share_blocks > 1:
            raise ValueError(
                f"sparsity.macs_ratio decides block by block, but got share_blocks={a.share_blocks}, which lets "
                f"blocks share their weights; name heads and mlp_units instead, or set share_blocks=1"
            )

    def pruned_architecture(self, architecture: Architecture) -> Architecture:
        """The dense architecture without the dropped blocks; its other sizes stay, ``widths`` has what is left."""
        if self.blocks is None:
            return architecture
        return architecture.model_copy(update={"depth": self.blocks})

    def widths(self, architecture: Architecture) -> tuple[BlockWidths, ...]:
        """The sizes of every block that survives, first to last.

        Args:
            architecture: The dense network's.

        Raises:
            ValueError: A tuple is not as long as blocks are kept.
        """
        return _widths(self, architecture)


@lru_cache(maxsize=4096)  # costs ask for them again and again
def _widths(sparsity: Sparsity, a: Architecture) -> tuple[BlockWidths, ...]:
    depth = sparsity.blocks or a.depth
    counts = (
        per_block(value, available, depth, f"sparsity.{name}")
        for name, value, available in (
            ("heads", sparsity.heads, a.heads),
            ("qk_dim", sparsity.qk_dim, a.head_dim),
            ("v_dim", sparsity.v_dim, a.head_dim),
            ("mlp_units", sparsity.mlp_units, a.mlp_units),
        )
    )
    first_class_block = depth - a.class_attention_blocks
    return tuple(
        BlockWidths(
            width=sparsity.width or a.width, heads=h, qk_dim=q, v_dim=v, mlp_units=m,
            class_tokens=a.num_prefix_tokens if index >= first_class_block else 0, mixes_heads=a.share_blocks > 1,
        )
        for index, (h, q, v, m) in enumerate(zip(*counts, strict=True))
    )  # fmt: skip


def _check(name: str, kept: int, available: int) -> None:
    if kept > available:
        raise ValueError(f"sparsity.{name} must be at most {available}, but got {kept}")


def _collapsed(kept: tuple[int, ...], available: int) -> int | tuple[int, ...] | None:
    if len(set(kept)) > 1:
        return kept
    return None if kept[0] == available else kept[0]
