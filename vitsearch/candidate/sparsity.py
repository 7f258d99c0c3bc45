"""What structured pruning leaves of each block."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.per_block import check_shared, per_block
from vitsearch.candidate.widths import BlockWidths
from vitsearch.config.base import Spec
from vitsearch.config.named import KeyOf

# Structured pruning: one line for each ranking, with its ``Ranking``.
PRUNERS: dict[str, str] = {
    "magnitude": "vitsearch.compress.weights.magnitude:rank_magnitude",
    "random": "vitsearch.compress.weights.chance:rank_random",
    "taylor": "vitsearch.compress.weights.taylor:rank_taylor",
    "vtp": "vitsearch.compress.weights.vtp:rank_vtp",
}
PrunerName = Annotated[str, KeyOf(PRUNERS, others=("none",))]

Count = Annotated[int, Field(ge=1)]
LATER_DEFAULTS: dict[str, object] = {
    "qk_dim": None, "v_dim": None, "width": None, "blocks": None, "macs_ratio": None, "steps": 1,
    "schedule": "linear",
}  # fmt: skip


class Sparsity(Spec):
    """How much of the dense network survives structured pruning.

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
        steps: In how many steps pruning goes, each with its share of the fine-tuning epochs; no more than these.
        schedule: How the share pruned grows over the steps: ``linear``, or ``cubic``, most of it at first.
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
        elif alone:
            return Sparsity()
        if self.method == "none":
            raise ValueError(
                f"sparsity.method must be named when units are pruned; choose {KeyOf(PRUNERS).expected}"
            )
        schedule = self.schedule if self.steps > 1 else "linear"
        return Sparsity.model_validate({"method": self.method, **kept, "steps": self.steps, "schedule": schedule})

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
