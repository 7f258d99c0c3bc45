"""One point of the search: architecture, tokens, sparsity, precision and training, frozen and hashed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Self

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.budget import even_widths
from vitsearch.candidate.precision import Precision
from vitsearch.candidate.sparsity import Sparsity
from vitsearch.candidate.tokens import SCORES, AnyTokenRule, NoReduction, TokenRule
from vitsearch.candidate.training import Training
from vitsearch.candidate.widths import BlockWidths
from vitsearch.config.base import Spec
from vitsearch.config.loading import load_json, parse


class Candidate(Spec):
    """A complete description of one model, from which it can be built and its cost computed.

    Attributes:
        architecture: The dense network.
        tokens: The token reducer and its settings.
        sparsity: What pruning leaves.
        precision: Bit-widths.
        training: How it is trained where that is not the job's recipe; costs nothing to run.

    Block numbers and figures per block are those of the blocks that pruning leaves.
    """

    architecture: Architecture
    tokens: AnyTokenRule = NoReduction()
    sparsity: Sparsity = Sparsity()
    precision: Precision = Precision()
    training: Training = Training()

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A candidate trained as its job says keeps the hash that it had before there was a choice."""
        data: dict[str, Any] = handler(self)
        if not data["training"]:
            del data["training"]
        return data

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        self._resolved_parts()
        _ = self.widths  # a budget must leave something
        return self

    def canonical(self) -> Candidate:
        """The one form that all spellings of the same model share: defaults written out, identities removed."""
        return Candidate.model_validate({"architecture": self.architecture.resolved(), **self._resolved_parts()})

    def _resolved_parts(self) -> dict[str, Spec]:
        sparsity = self.sparsity.resolved(self.architecture)
        pruned = sparsity.pruned_architecture(self.architecture)
        if pruned.class_attention_blocks and self.tokens.needs_class_token:
            others = [name for name, kind in SCORES.items() if not kind.needs_class_token]
            raise ValueError(
                f"{self.tokens.reducer} judges patches by the CLS token, which joins them only in the last blocks "
                f"under class_attention_blocks={pruned.class_attention_blocks}; set class_attention_blocks=0, "
                f"choose score from {others} where the reducer has one, or choose tome"
            )
        if pruned.class_attention_blocks and self.tokens.runs_blocks:
            raise ValueError(
                f"{self.tokens.reducer} runs whole blocks, which class tokens pass by under "
                f"class_attention_blocks={pruned.class_attention_blocks}; set it to 0 or choose topk"
            )
        tokens = self.tokens.resolved(pruned.self_attention_part)
        if pruned.pooling_branches and not tokens.keeps_grid:
            raise ValueError(
                f"{tokens.reducer} leaves no grid of patches, on which pooling_branches average neighbours; "
                "choose grid_pool or none, or set pooling_branches=False"
            )
        return {
            "tokens": tokens,
            "sparsity": sparsity,
            "precision": self.precision.resolved(pruned, self.equal_blocks),
            "training": self.training.resolved(),
        }

    @property
    def equal_blocks(self) -> tuple[tuple[int, ...], ...]:
        """Indices of blocks of one shape, group by group, without the first and the last.

        Blocks that share their weights are there once, as the first of them.
        """
        sizes = self.sparsity.widths(self.architecture)
        share = self.architecture.share_blocks
        between = range(share, len(sizes) - share, share)
        shapes = dict.fromkeys(sizes[b] for b in between)
        return tuple(tuple(b for b in between if sizes[b] == shape) for shape in shapes)

    @property
    def pruned_architecture(self) -> Architecture:
        """The architecture of the blocks that are left: what token reducers and bit-widths are about."""
        return self.sparsity.pruned_architecture(self.architecture)

    @property
    def widths(self) -> tuple[BlockWidths, ...]:
        """The sizes of every block that is left, first to last.

        Under a budget of MACs the ranking decides them; these are the sizes of the same share of every block, and
        cost as many MACs within 1 %. Their parameters are an estimate: 3 % off in networks that keep their tokens,
        up to 11 % where the last blocks see half of them; a trial's result has the real number.
        """
        sizes = self.sparsity.widths(self.architecture)
        if self.sparsity.macs_ratio is None:
            return sizes
        return even_widths(sizes, self.budget_counts, self.sparsity.macs_ratio)

    @property
    def token_counts(self) -> tuple[int, ...]:
        """Tokens entering block 1, ..., depth, and leaving the last: those that reducers may remove.

        Where class tokens have blocks of their own they are no such tokens, and are not counted.
        """
        a = self.pruned_architecture
        return _to_the_end(self.tokens.token_counts(a.self_attention_part), a)

    @property
    def budget_counts(self) -> tuple[int, ...]:
        """``token_counts`` by which a share of the network's MACs is meant."""
        return budget_counts_of(self.tokens, self.pruned_architecture)

    @property
    def tokens_per_block(self) -> list[tuple[int, int]]:
        """Of these, the tokens in the attention and in the MLP of block 1, 2, ..., depth."""
        a = self.pruned_architecture
        part = a.self_attention_part
        left = self.tokens.token_counts(part)[-1]
        return [*self.tokens.tokens_per_block(part), *[(left, left)] * a.class_attention_blocks]

    def canonical_json(self) -> str:
        """JSON of the canonical form, keys sorted; equal models give equal text."""
        return json.dumps(self.canonical().model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    @property
    def hash(self) -> str:
        """SHA-256 of ``canonical_json``, 16 hex digits."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()[:16]

    def summary(self) -> str:
        """A short line for tables: ``d4 w64 h4 p2 m2 · tome r=3 · mlp 75% · W8A8``."""
        a = self.architecture
        parts = [f"d{a.depth} w{a.width} h{a.heads} p{a.patch_size} m{a.mlp_ratio:g}", *a.variants]
        if self.tokens.reducer != "none":
            parts.append(self.tokens.summary())
        widths, depth = self.widths, self.pruned_architecture.depth
        shares: tuple[tuple[str, list[int], int], ...] = (
            ("blocks", [depth], a.depth),
            ("width", [widths[0].width], a.width),
            ("mlp", [block.mlp_units for block in widths], a.mlp_units),
            ("heads", [block.heads for block in widths], a.heads),
            ("qk", [block.qk_dim for block in widths], a.head_dim),
            ("v", [block.v_dim for block in widths], a.head_dim),
        )
        if self.sparsity.macs_ratio is not None:
            parts.append(f"MACs {100 * self.sparsity.macs_ratio:.0f}%")
            shares = ()
        for name, kept, available in shares:
            if min(kept) < available:
                parts.append(f"{name} {100 * sum(kept) / (available * len(kept)):.0f}%")
        if self.sparsity.mask != "none":
            unstructured = self.sparsity.mask == "unstructured"
            parts.append(f"zeros {100 * self.sparsity.zeros:.0f}%" if unstructured else self.sparsity.mask)
        if not self.precision.is_float32:
            weights = self.precision.weight_bits_per_block(depth)
            activations = self.precision.activation_bits_per_block(depth)
            parts.append(f"W{sum(weights) / depth:.3g}A{sum(activations) / depth:.3g}")
        if self.training != Training():
            parts.append(self.training.summary())
        return " · ".join(parts)


def budget_counts_of(tokens: TokenRule, architecture: Architecture) -> tuple[int, ...]:
    """``Candidate.budget_counts`` of a rule and the blocks that are left."""
    return _to_the_end(tokens.budget_counts(architecture.self_attention_part), architecture)


def _to_the_end(counts: list[int], architecture: Architecture) -> tuple[int, ...]:
    """Token counts of the self-attention blocks, and in class-attention blocks as many as leave those."""
    return (*counts, *counts[-1:] * architecture.class_attention_blocks)


def load_candidate(path: Path) -> Candidate:
    """Read ``candidate.json``.

    Raises:
        InputError: The file is missing, not JSON or breaks a rule.
    """
    return parse(Candidate, load_json(path), where=str(path)).canonical()
