"""How many tokens each image keeps, where that depends on the image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vitsearch.models import AttentionState, Block, TokenReducer, TokenRoute, TokenState, VisionTransformer

Counts = npt.NDArray[np.int64]


@dataclass(kw_only=True)
class TokenMeter:
    """Tokens of every image that went through a network, image by image.

    Attributes:
        before: For each block with a reducer, by its number from 1: tokens that its attention saw.
        after: Tokens that its MLP saw, likewise.
        leaving: Tokens that left it, likewise.
    """

    before: dict[int, list[Tensor]] = field(default_factory=dict)
    after: dict[int, list[Tensor]] = field(default_factory=dict)
    leaving: dict[int, list[Tensor]] = field(default_factory=dict)

    def note(self, block: int, before_B: Tensor, after_B: Tensor, leaving_B: Tensor) -> None:
        """Note one batch."""
        for place, counts_B in ((self.before, before_B), (self.after, after_B), (self.leaving, leaving_B)):
            place.setdefault(block, []).append(counts_B.cpu())

    def per_block(self, num_tokens: int, depth: int) -> tuple[list[tuple[Counts, Counts]], Counts]:
        """For each block, what its attention and its MLP saw, and what left the last; an array over images each.

        Args:
            num_tokens: Tokens that enter the first block.
            depth: Blocks.
        """
        now = np.full(self._num_images, num_tokens, np.int64)
        found = []
        for block in range(1, depth + 1):
            if block not in self.before:
                found.append((now, now))
                continue
            found.append((_joined(self.before[block]), _joined(self.after[block])))
            now = _joined(self.leaving[block])
        return found, now

    @property
    def _num_images(self) -> int:
        return sum(len(counts_B) for counts_B in next(iter(self.before.values()), []))


@contextmanager
def metered(model: VisionTransformer) -> Iterator[TokenMeter]:
    """Count the tokens of every image inside the ``with`` block."""
    meter = TokenMeter()
    reducers = {number: _block(block).reducer for number, block in enumerate(model.blocks, start=1)}
    model.set_reducers({n: _metered(one, n, meter) for n, one in reducers.items() if one is not None})
    try:
        yield meter
    finally:
        model.set_reducers({number: one for number, one in reducers.items() if one is not None})


def _metered(inner: TokenReducer | TokenRoute, number: int, meter: TokenMeter) -> TokenReducer | TokenRoute:
    if isinstance(inner, TokenRoute):
        return _MeteredRoute(inner, number, meter)

    def reduce(x_BND: Tensor, attention: AttentionState, size_BN: Tensor | None) -> tuple[Tensor, Tensor | None]:
        out_BMD, out_BM = inner(x_BND, attention, size_BN)
        left_B = _counts(out_BMD, out_BM)
        meter.note(number, _counts(x_BND, size_BN), left_B, left_B)
        return out_BMD, out_BM

    return reduce


class _MeteredRoute(TokenRoute):
    """A route whose block sees every token that enters it."""

    def __init__(self, inner: TokenRoute, number: int, meter: TokenMeter) -> None:
        self.inner, self.number, self.meter = inner, number, meter

    def run(self, block: Block, state: TokenState) -> TokenState:
        after = self.inner.run(block, state)
        seen_B = _counts(state.x_BND, state.size_BN)
        self.meter.note(self.number, seen_B, seen_B, _counts(after.x_BND, after.size_BN))
        return after


def _counts(x_BND: Tensor, size_BN: Tensor | None) -> Tensor:
    if size_BN is None:
        return torch.full((x_BND.shape[0],), x_BND.shape[1], dtype=torch.int64)
    return (size_BN > 0).sum(dim=1)


def _joined(counts: list[Tensor]) -> Counts:
    joined: Counts = torch.cat(counts).numpy().astype(np.int64)
    return joined


def _block(block: torch.nn.Module) -> Block:
    assert isinstance(block, Block)
    return block
