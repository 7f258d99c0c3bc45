"""A-ViT, patches that halt, on a running network, and what trains it.

Shape suffixes: B batch, N tokens, D width, p prefix tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from vitsearch.candidate import Architecture, AViT
from vitsearch.compress.tokens.ragged import compacted, present
from vitsearch.compress.tokens.scores import ones_unless
from vitsearch.models import Block, TokenRoute, TokenState, VisionTransformer
from vitsearch.train.batches import Batch
from vitsearch.train.losses import LossTerm, Outputs


class Halting(NamedTuple):
    """What one block hands to the next.

    Attributes:
        summed_BN: Halting scores so far.
        output_BpD: The weighted sum of the prefix tokens so far.
        ponder_B: Blocks computed and remainders so far, summed over tokens.
    """

    summed_BN: Tensor
    output_BpD: Tensor
    ponder_B: Tensor


class AViTRoute(TokenRoute):
    """Runs one block and lets tokens halt after it.

    The rule (Yin et al., 2022, Eq. 4-9), with x what the block leaves and c_i the halting scores before it::

        h_i = sigmoid(gamma x_i[0] - beta), in the last block 1;   i halts if c_i + h_i >= 1 - eps
        p_i = h_i, or 1 - c_i in the block in which i halts, or 0 after it;   c_i <- c_i + h_i
        the head reads sum over blocks of p_cls x_cls;   a patch that has halted leaves

    Prefix tokens stay in the sequence after they have halted, but no longer count in what the head reads.

    Args:
        gamma: Scale.
        beta: Shift.
        eps: Slack.
        is_last: Whether everything halts here.
        num_prefix: Leading tokens.
    """

    def __init__(self, gamma: float, beta: float, eps: float, *, is_last: bool, num_prefix: int) -> None:
        self.gamma, self.beta, self.eps = gamma, beta, eps
        self.is_last, self.num_prefix = is_last, num_prefix
        self.learns = False  # only then is anything kept: an export's placeholders must not stay in the network
        self.ponder_B: Tensor | None = None  # of the latest pass through the last block

    def run(self, block: Block, state: TokenState) -> TokenState:
        """Run; the memory is a ``Halting``."""
        prefix = self.num_prefix
        x_BND, size_BN = block(state.x_BND, state.size_BN)
        size_BN = ones_unless(size_BN, x_BND)
        there_BN = present(size_BN)
        before = state.memory
        if before is None:
            nothing_B = size_BN.new_zeros(x_BND.shape[0])
            before = Halting(torch.zeros_like(size_BN), torch.zeros_like(x_BND[:, :prefix]), nothing_B)
        assert isinstance(before, Halting)
        h_BN = (self.gamma * x_BND[..., 0] - self.beta).sigmoid().to(size_BN.dtype)
        if self.is_last:
            h_BN = torch.ones_like(h_BN)
        runs_BN = there_BN & (before.summed_BN < 1 - self.eps)
        summed_BN = before.summed_BN + h_BN
        halts_BN = runs_BN & (summed_BN >= 1 - self.eps)
        remainder_BN = (1 - before.summed_BN) * halts_BN
        p_BN = torch.where(halts_BN, 1 - before.summed_BN, h_BN) * runs_BN
        output_BpD = before.output_BpD + p_BN[:, :prefix, None] * x_BND[:, :prefix]
        ponder_B = before.ponder_B + (runs_BN + remainder_BN).sum(dim=1)
        if self.is_last:
            self.ponder_B = ponder_B if self.learns else None
            return TokenState(torch.cat([output_BpD, x_BND[:, prefix:]], dim=1), size_BN, None)
        goes_BN = halts_BN & (torch.arange(x_BND.shape[1], device=x_BND.device) >= prefix)
        x_BND, size_BN, summed_BN = compacted(x_BND, size_BN * ~goes_BN, summed_BN)
        return TokenState(x_BND, size_BN, Halting(summed_BN, output_BpD, ponder_B))


def build_avit(rule: AViT, architecture: Architecture) -> dict[int, TokenRoute]:
    """A route for each block; none without halting."""
    depth = architecture.depth
    if not rule.gamma or depth == 1:
        return {}
    return {
        block: AViTRoute(
            rule.gamma, rule.beta, rule.eps, is_last=block == depth, num_prefix=architecture.num_prefix_tokens
        )
        for block in range(1, depth + 1)
    }


@contextmanager
def avit_losses(
    model: VisionTransformer,
    rule: AViT,
    teacher: VisionTransformer,  # noqa: ARG001
) -> Iterator[tuple[LossTerm, ...]]:
    """What is added to the recipe's loss (Yin et al., 2022, Eq. 10).

    L = ponder * mean over images and tokens of (blocks computed + remainder when it halts)

    Args:
        model: With the routes.
        rule: Its weight.
        teacher: Unused.
    """
    last = model.blocks[-1].reducer

    def loss(outputs: Outputs, batch: Batch) -> Tensor:  # noqa: ARG001
        assert isinstance(last, AViTRoute)
        assert last.ponder_B is not None
        return rule.ponder * last.ponder_B.mean() / model.architecture.num_tokens

    if not isinstance(last, AViTRoute):
        yield ()
        return
    last.learns = True
    try:
        yield (loss,)
    finally:
        last.learns, last.ponder_B = False, None
