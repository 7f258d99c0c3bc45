"""What every token reducer's torch-free half promises."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal, Self

from vitsearch.candidate.architecture import Architecture
from vitsearch.candidate.widths import BlockWidths
from vitsearch.config.base import Spec

CostKind = Literal["exact", "bounded", "measured"]


@dataclass(frozen=True, kw_only=True)
class LearnedPart:
    """What a reducer that learns adds to one block; it is stored and computed in 32 bits.

    Attributes:
        weights: Elements of its linear weights.
        others: Its other parameters.
        products: MACs of its linear layers for each patch it judges.
        norms: MACs of its LayerNorms, likewise.
        products_once: MACs of its linear layers for each image besides.
        norms_once: MACs of its LayerNorms, likewise.
    """

    weights: int = 0
    others: int = 0
    products: int = 0
    norms: int = 0
    products_once: int = 0
    norms_once: int = 0


class TokenRule(Spec):
    """How many tokens leave after the attention of each block, and what deciding that costs.

    A rule holds a reducer's settings and its arithmetic; the kernel of the same name lives in
    ``vitsearch.compress.tokens``. Blocks are counted from 1, as papers do.

    Attributes:
        reducer: The reducer's name; the discriminator in JSON.
        tracks_sizes: Whether the kernel says for how many patches each token stands.
        averages: Whether an image's tokens either drop whole or merge into averages weighted by size, and nothing
            else happens to them.
        keeps_grid: Whether the patches that are left are a smaller square grid, row by row.
        per_block_fields: Settings that may be one figure for all chosen blocks or a tuple with one for each.
    """

    tracks_sizes: ClassVar[bool] = True
    averages: ClassVar[bool] = True
    keeps_grid: ClassVar[bool] = False
    per_block_fields: ClassVar[tuple[str, ...]] = ()

    reducer: str

    @classmethod
    @abstractmethod
    def identity(cls) -> Self:
        """The setting that removes nothing; its canonical form is ``NoReduction``."""

    @classmethod
    @abstractmethod
    def examples(cls) -> tuple[Self, ...]:
        """Settings that together reach every branch of rule and kernel; the most ordinary one first.

        Each fits a network of four blocks and 25 patches and removes something there. The conformance suite runs
        them all.
        """

    @property
    def needs_class_token(self) -> bool:
        """Whether patches are judged by a CLS token; such a rule refuses a network without one."""
        return False

    @property
    def runs_blocks(self) -> bool:
        """Whether the kernel runs whole blocks (a ``TokenRoute``), which class attention does not allow."""
        return False

    @property
    def drops(self) -> bool:
        """Whether a token may leave without a trace."""
        return True

    @property
    def sees_positions(self) -> bool:
        """Whether the place of a patch in the image matters, and not only what it holds."""
        return False

    @property
    def cost_kind(self) -> CostKind:
        """Whether token counts are known before training."""
        return "exact"

    @property
    def learns(self) -> bool:
        """Whether it has parameters of its own, which the fine-tuning epochs of a trial train."""
        return False

    @property
    def is_fitted(self) -> bool:
        """Whether it chooses something once, on calibration images, before a trained network goes on."""
        return False

    def learned_part(self, architecture: Architecture, width: int) -> LearnedPart:  # noqa: ARG002
        """What it adds to each block in which it acts, where tokens are ``width`` wide."""
        return LearnedPart()

    def tokens_judged(self, architecture: Architecture, block: int, entering: Sequence[int]) -> int:  # noqa: ARG002
        """Tokens among whose patches the learned part of ``block`` chooses.

        Args:
            architecture: The network's, without dropped blocks.
            block: From 1.
            entering: Tokens that the attention of each block sees.
        """
        return entering[block - 1]

    @abstractmethod
    def resolved(self, architecture: Architecture) -> Self | NoReduction:
        """The canonical form: defaults written out; ``NoReduction`` when nothing would be removed.

        Raises:
            ValueError: The settings do not fit the architecture; the message says what to change.
        """

    @abstractmethod
    def active_blocks(self, depth: int) -> tuple[int, ...]:
        """Blocks after whose attention the reducer runs."""

    @abstractmethod
    def tokens_after(self, num_tokens: int, architecture: Architecture, block: int) -> int:
        """Tokens that leave ``block`` when ``num_tokens`` enter it."""

    def extra_macs(self, num_tokens: int, architecture: Architecture, block: int, widths: BlockWidths) -> int:  # noqa: ARG002
        """MACs of the reducer's own matrix products after ``block``, for one image of ``num_tokens`` tokens.

        ``widths`` are the block's after pruning, unlike those of ``architecture``.

        Zero where the reducer bypasses the block because nothing is left to remove.
        """
        return 0

    def tokens_per_block(self, architecture: Architecture) -> list[tuple[int, int]]:
        """Tokens in the attention and in the MLP of block 1, 2, ..., depth."""
        return list(pairwise(self.token_counts(architecture)))

    def blocks_with_macs(self, depth: int) -> tuple[int, ...]:
        """Blocks to which ``extra_macs`` applies."""
        return self.active_blocks(depth)

    def summary(self) -> str:
        """A few words: the name, its figures, and named settings that are not the default ones."""
        words = [self.reducer]
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if name in {"reducer", "blocks"} or value is None or isinstance(value, bool):
                continue
            if isinstance(value, str) and value == field.default:
                continue
            figures = value if isinstance(value, tuple) else (value,)
            words.append(f"{name}={','.join(one if isinstance(one, str) else f'{one:.3g}' for one in figures)}")
        return " ".join(words)

    def token_counts(self, architecture: Architecture) -> list[int]:
        """Tokens entering block 1, 2, ..., depth, and leaving the last; ``depth + 1`` figures."""
        active = set(self.active_blocks(architecture.depth))
        counts = [architecture.num_tokens]
        for block in range(1, architecture.depth + 1):
            now = counts[-1]
            counts.append(self.tokens_after(now, architecture, block) if block in active else now)
        return counts

    def budget_counts(self, architecture: Architecture) -> list[int]:
        """``token_counts`` by which a share of the network's MACs is meant."""
        return self.token_counts(architecture)


class NoReduction(TokenRule):
    """Every token stays; the identity."""

    keeps_grid: ClassVar[bool] = True

    reducer: Literal["none"] = "none"

    @classmethod
    def identity(cls) -> Self:
        """Itself."""
        return cls()

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """The one there is, although it removes nothing."""
        return (cls(),)

    def resolved(self, architecture: Architecture) -> Self:  # noqa: ARG002
        """Itself."""
        return self

    def active_blocks(self, depth: int) -> tuple[int, ...]:  # noqa: ARG002
        """No block."""
        return ()

    def tokens_after(self, num_tokens: int, architecture: Architecture, block: int) -> int:  # noqa: ARG002
        """All of them."""
        return num_tokens
