"""What a ranking for structured pruning is given beside the network, and what it gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from vitsearch.compress.weights.units import Units
from vitsearch.models import VisionTransformer
from vitsearch.train.losses import LossTerm


class Trainer(Protocol):
    """Trains a network in place by the trial's recipe."""

    def __call__(self, model: VisionTransformer, epochs: int, terms: tuple[LossTerm, ...] = ()) -> None:
        """Run ``epochs`` with the recipe's loss and further ``terms``."""
        ...


def train_nothing(model: VisionTransformer, epochs: int, terms: tuple[LossTerm, ...] = ()) -> None:
    """Leaves the network as it is, where there is nothing to train on."""


@dataclass(frozen=True, kw_only=True)
class PruneContext:
    """The trial as pruning sees it.

    Attributes:
        seed: Of whatever is drawn.
        batches: Normalised training images (B, C, H, W) and their class indices (B,), on the network's device.
        train: Fine-tunes, and trains what a ranking has to learn.
        epochs: Epochs there are for both.
        tokens: Tokens that enter each block that stays, and leave the last; every token where left out.
        macs_share: The share of ``products`` that will be left when heads and hidden units have gone.
    """

    seed: int = 0
    batches: Sequence[tuple[Tensor, Tensor]] = ()
    train: Trainer = train_nothing
    epochs: int = 0
    tokens: tuple[int, ...] = ()
    macs_share: float = 1.0

    def tokens_of(self, model: VisionTransformer) -> tuple[int, ...]:
        """Tokens that enter each block there is now, and leave the last.

        A block that may go has the tokens of the one at its relative depth among those that stay.
        """
        tokens, depth = self.tokens or (model.architecture.num_tokens,), len(model.widths)
        return tuple(tokens[i * (len(tokens) - 1) // depth] for i in range(depth + 1))


class Ranked(NamedTuple):
    """A network and what each of its units is worth.

    Attributes:
        model: The network to slice: the one that was ranked, or what training made of a copy of it.
        scores: A score for every unit, compared among units of one kind; within one block, except for channels
            and blocks.
        epochs: Epochs the ranking took of those there are.
        across_kinds: Whether a head's score can be held against a hidden unit's as it is.
    """

    model: VisionTransformer
    scores: Units
    epochs: int = 0
    across_kinds: bool = False


class Ranking(Protocol):
    """Tells how much each unit of a trained network matters; the least are pruned."""

    def __call__(self, model: VisionTransformer, context: PruneContext) -> Ranked:
        """Rank the units of ``model``, which stays as it is."""
        ...
