"""Rules that act after chosen blocks, with one rate for all of them, a schedule, or a rate for each."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.tokens.rule import NoReduction, TokenRule

Blocks = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
Schedule = Literal["constant", "decreasing", "increasing"]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]
SHARE_SLACK = 1e-9  # keeps ceil(0.07 * 100) at 7
MAX_DIGITS = 6

ValueT = TypeVar("ValueT", int, float)


class BlockwiseRule(TokenRule):
    """A rule that acts after chosen blocks.

    Attributes:
        blocks: Chosen blocks, from 1; 4, 7 and 10 of twelve when left out.
    """

    blocks: Blocks | None = None

    @classmethod
    def default_blocks(cls, depth: int) -> tuple[int, ...]:
        """The blocks chosen when none are named."""
        return quarter_blocks(depth)

    def active_blocks(self, depth: int) -> tuple[int, ...]:
        """The chosen blocks."""
        return self.blocks or self.default_blocks(depth)

    def at(self, value: ValueT | tuple[ValueT, ...], block: int, depth: int) -> ValueT:
        """The figure of ``block``, where ``value`` is one for all chosen blocks or one for each."""
        return value[self.active_blocks(depth).index(block)] if isinstance(value, tuple) else value

    def check_blocks(self, architecture: Architecture) -> None:
        """Refuse block numbers the network does not have, and rates that do not go with the chosen blocks.

        Raises:
            ValueError: A block lies past the depth, or stands twice or out of order; a tuple has another length
                than there are chosen blocks; a schedule stands beside a tuple.
        """
        depth = architecture.depth
        blocks = self.blocks or self.default_blocks(depth)
        if blocks[-1] > depth or list(blocks) != sorted(set(blocks)):
            raise ValueError(
                f"{self.reducer} blocks must ascend within 1..depth, but got blocks={list(blocks)}, "
                f"depth={depth}; the default is {list(self.default_blocks(depth))}"
            )
        for name in self.per_block_fields:
            value = getattr(self, name)
            if not isinstance(value, tuple):
                continue
            if len(value) != len(blocks):
                raise ValueError(
                    f"{self.reducer} {name} must have one figure per chosen block, but got {len(value)} for "
                    f"blocks={list(blocks)}; write {len(blocks)} of them or a single one"
                )
            if getattr(self, "schedule", "constant") != "constant":
                raise ValueError(
                    f"{self.reducer} schedule spreads a single {name} over the blocks, but got one for each; "
                    f"remove schedule or write a single {name}"
                )


class RemovalRule(BlockwiseRule):
    """A rule that removes r tokens after each chosen block, and at most half the patches.

    Attributes:
        r: Tokens removed per chosen block, averaged over them, or one figure for each; at most half the patches.
            Later blocks remove no more than half of what is left.
        schedule: ``constant``; ``decreasing`` linearly from 2r to 0; ``increasing`` from 0 to 2r.
    """

    per_block_fields: ClassVar[tuple[str, ...]] = ("r",)

    r: Count | tuple[Count, ...]
    schedule: Schedule = "constant"

    def rate(self, block: int, depth: int) -> int:
        """Tokens asked of ``block`` before the limit of half the patches applies."""
        factor = schedule_factor(self.schedule, self.active_blocks(depth), block)
        return int(factor * self.at(self.r, block, depth) + 0.5)

    def tokens_after(self, num_tokens: int, architecture: Architecture, block: int) -> int:
        """N - min(r, (N - protected) // 2)."""
        limit = max_merges(num_tokens, architecture.num_prefix_tokens)
        return num_tokens - min(self.rate(block, architecture.depth), limit)

    def resolved(self, architecture: Architecture) -> Self | NoReduction:
        """The schedule as tokens removed by each block that removes any; no reduction where none does."""
        limit = max_merges(architecture.num_tokens, architecture.num_prefix_tokens)
        highest = max(self.r) if isinstance(self.r, tuple) else self.r
        if highest > limit:
            raise ValueError(
                f"{self.reducer} r must be at most (tokens - protected) // 2 = {limit}, but got r={highest}; "
                f"lower r or choose a smaller patch_size"
            )
        self.check_blocks(architecture)
        counts = self.token_counts(architecture)
        removed = {block: counts[block - 1] - counts[block] for block in self.active_blocks(architecture.depth)}
        return canonical(self, {"r": removed}, {block for block, r in removed.items() if r}, schedule="constant")


class SelectRule(BlockwiseRule):
    """A rule that keeps some patches after each chosen block, and perhaps one token for all others."""

    @property
    def num_summaries(self) -> int:
        """Tokens that stand for those not kept."""
        return 0

    @abstractmethod
    def num_kept(self, num_tokens: int, architecture: Architecture, block: int) -> int:
        """Patches of ``num_tokens`` tokens that ``block`` keeps."""

    def tokens_after(self, num_tokens: int, architecture: Architecture, block: int) -> int:
        """Prefix + kept + the token for the others, if there are any."""
        kept = self.num_kept(num_tokens, architecture, block)
        if kept == num_tokens - architecture.num_prefix_tokens:
            return num_tokens
        return architecture.num_prefix_tokens + kept + self.num_summaries

    def kept_per_block(self, architecture: Architecture) -> dict[int, tuple[int, int]]:
        """Patches that reach each chosen block, and how many of them it keeps."""
        counts = self.token_counts(architecture)
        return {
            block: (
                counts[block - 1] - architecture.num_prefix_tokens,
                self.num_kept(counts[block - 1], architecture, block),
            )
            for block in self.active_blocks(architecture.depth)
        }


class KeepRule(SelectRule):
    """A rule that keeps a share of the patches after each chosen block.

    Attributes:
        keep: Share of the patches kept at each chosen block, or one figure for each; 1 is the identity.
        schedule: ``constant``; ``decreasing``: keep^2 at the first chosen block, all at the last, the exponent
            falling linearly, so that as many are left in the end; ``increasing``: the other way round. One patch
            stays in any case.
    """

    per_block_fields: ClassVar[tuple[str, ...]] = ("keep",)

    keep: Share | tuple[Share, ...] = 0.7
    schedule: Schedule = "constant"

    @classmethod
    def identity(cls) -> Self:
        """Every patch."""
        return cls.model_validate({"keep": 1.0})

    def num_kept(self, num_tokens: int, architecture: Architecture, block: int) -> int:
        """ceil(keep (N - prefix)), and at least one."""
        depth = architecture.depth
        factor = schedule_factor(self.schedule, self.active_blocks(depth), block)
        share = self.at(self.keep, block, depth) ** factor
        return share_of(num_tokens - architecture.num_prefix_tokens, share)

    def resolved(self, architecture: Architecture) -> Self | NoReduction:
        """The plainest shares that keep as many patches, in blocks that drop any; no reduction where none does."""
        self.check_blocks(architecture)
        kept = {block: pair for block, pair in self.kept_per_block(architecture).items() if pair[1] < pair[0]}
        shares = dict(zip(kept, plainest_shares(list(kept.values())), strict=True))
        return canonical(self, {"keep": shares}, set(kept), schedule="constant")


class CountRule(SelectRule):
    """A rule that keeps a number of patches, or a share of them, after each chosen block.

    Attributes:
        k: Patches kept at each chosen block, or one figure for each.
        keep: Instead of ``k``: their share. One of the two is given.
        schedule: As in ``KeepRule``; goes with ``keep``.
    """

    per_block_fields: ClassVar[tuple[str, ...]] = ("k", "keep")

    k: Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=1)], ...] | None = None
    keep: Share | tuple[Share, ...] | None = None
    schedule: Schedule = "constant"

    @classmethod
    def identity(cls) -> Self:
        """Every patch."""
        return cls.model_validate({"keep": 1.0})

    def num_kept(self, num_tokens: int, architecture: Architecture, block: int) -> int:
        """min(k, N - prefix), or ceil(keep (N - prefix)) and at least one."""
        depth = architecture.depth
        patches = num_tokens - architecture.num_prefix_tokens
        if self.k is not None:
            return min(self.at(self.k, block, depth), patches)
        assert self.keep is not None
        factor = schedule_factor(self.schedule, self.active_blocks(depth), block)
        return share_of(patches, self.at(self.keep, block, depth) ** factor)

    def resolved(self, architecture: Architecture) -> Self | NoReduction:
        """The number that each block keeps, in blocks that drop any; no reduction where none does."""
        if (self.k is None) == (self.keep is None):
            raise ValueError(
                f"{self.reducer} takes either k or keep, but got k={self.k}, keep={self.keep}; "
                f"write k=8 for eight patches or keep=0.5 for half of them"
            )
        if self.k is not None and self.schedule != "constant":
            raise ValueError(
                f"{self.reducer} schedule goes with keep, but got k={self.k}, schedule={self.schedule}; "
                f"write keep, or a k for each block"
            )
        self.check_blocks(architecture)
        kept = {block: pair[1] for block, pair in self.kept_per_block(architecture).items() if pair[1] < pair[0]}
        return canonical(self, {"k": kept}, set(kept), schedule="constant", keep=None)


RuleT = TypeVar("RuleT", bound=BlockwiseRule)


def canonical(
    rule: RuleT, figures: dict[str, dict[int, Any]], blocks: set[int], **settings: object
) -> RuleT | NoReduction:
    """``rule`` with its figures in ``blocks`` alone, as one figure where all are equal; the identity for none."""
    if not blocks:
        return NoReduction()
    chosen = tuple(sorted(blocks))
    plain = {name: one_if_equal([by_block[block] for block in chosen]) for name, by_block in figures.items()}
    return rule.model_copy(update={"blocks": chosen, **plain, **settings})


def one_if_equal(values: Sequence[ValueT]) -> ValueT | tuple[ValueT, ...]:
    """The one figure that all are, or all of them."""
    return values[0] if len(set(values)) == 1 else tuple(values)


def quarter_blocks(depth: int) -> tuple[int, ...]:
    """Blocks 4, 7, 10 of twelve, and the same places of any other depth."""
    return tuple(sorted({depth * quarter // 4 + 1 for quarter in (1, 2, 3)}))


def every_block(depth: int) -> tuple[int, ...]:
    """1, ..., depth."""
    return tuple(range(1, depth + 1))


def max_merges(num_tokens: int, num_prefix: int) -> int:
    """Largest number of tokens one bipartite matching can merge: (N - protected) // 2."""
    return max(0, num_tokens - num_prefix) // 2


def schedule_factor(schedule: Schedule, blocks: tuple[int, ...], block: int) -> float:
    """What a rate is multiplied with at ``block`` (a share: raised to): 1, or linearly 2 to 0, or 0 to 2."""
    if schedule == "constant" or len(blocks) == 1:
        return 1.0
    position = blocks.index(block) / (len(blocks) - 1)
    return 2 * (1 - position if schedule == "decreasing" else position)


def share_of(num_patches: int, share: float) -> int:
    """ceil(share P), but at least one of them; the small slack keeps 0.07 * 100 at 7."""
    return min(num_patches, max(1, math.ceil(share * num_patches - SHARE_SLACK)))


def plainest_shares(kept: list[tuple[int, int]]) -> list[float]:
    """For (patches, kept) of each block, shares with few digits that keep as many; one for all if there is one."""
    together = _plainest(kept)
    if together is not None:
        return [together] * len(kept)
    return [_plainest([pair]) or pair[1] / pair[0] for pair in kept]


def _plainest(kept: list[tuple[int, int]]) -> float | None:
    highest = min((m / patches for patches, m in kept), default=1.0)
    for digits in range(1, MAX_DIGITS + 1):
        share: float = math.floor(highest * 10**digits + SHARE_SLACK) / 10**digits
        if share > 0 and all(share_of(patches, share) == m for patches, m in kept):
            return share
    return None
