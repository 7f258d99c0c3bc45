"""IA-RED2 on a running network, and what trains it.

Shape suffixes: B batch, N tokens, P patches, D width, H heads, K width of one head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vitsearch.candidate import Architecture, IARed
from vitsearch.candidate.tokens.iared import interpreter_width
from vitsearch.compress.tokens.ragged import at_least_one, drop_others, scores_of_present
from vitsearch.compress.tokens.scores import ones_unless
from vitsearch.models import AttentionState, TokenReducer, VisionTransformer
from vitsearch.train.batches import Batch
from vitsearch.train.losses import LossTerm, Outputs

EPS = 1e-6
FIRST_SHIFT = 2.0  # an interpreter that knows nothing keeps most


class IARedReducer(nn.Module):
    """Drops patches that an interpreter finds uninformative.

    The rule (Pan et al., 2021, Eq. 2), with z = LayerNorm(x)::

        I_i = mean over heads h of sigmoid(q_h(z_i) . k_h(z_cls) / sqrt(K) + b);   i stays if I_i >= below
        training: i stays with probability I_i, drawn for each image

    The CLS token takes the place of the paper's policy token. The best patch stays in any case.

    Args:
        below: The threshold.
        width: D.
        heads: H.
        num_prefix: Leading tokens, which stay.
    """

    def __init__(self, below: float, *, width: int, heads: int, num_prefix: int) -> None:
        super().__init__()
        self.below, self.heads, self.num_prefix = below, heads, num_prefix
        inner = interpreter_width(width, heads)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.query, self.key = nn.Linear(width, inner), nn.Linear(width, inner)
        self.shift = nn.Parameter(torch.full((), FIRST_SHIFT))
        self.log_prob_B: Tensor | None = None  # of the choices of the latest training pass, mean over patches
        self.kept_B: Tensor | None = None  # the share of the patches there that they kept

    def forward(
        self,
        x_BND: Tensor,
        attention: AttentionState,  # noqa: ARG002
        size_BN: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Interpret and drop."""
        prefix, size_BN = self.num_prefix, ones_unless(size_BN, x_BND)
        informs_BP = self.informativeness(x_BND)
        ranked_BP = scores_of_present(informs_BP, size_BN[:, prefix:])
        keep_BP = ranked_BP >= self.below
        if self.training:
            keep_BP = self._drawn(informs_BP, ranked_BP > -torch.inf)
        return drop_others(x_BND, size_BN, at_least_one(keep_BP, ranked_BP), prefix)

    def informativeness(self, x_BND: Tensor) -> Tensor:
        """I, (B, P)."""
        z_BPD, z_B1D = self.norm(x_BND[:, self.num_prefix :]), self.norm(x_BND[:, :1])
        q_BPHK = self.query(z_BPD).unflatten(-1, (self.heads, -1))
        k_B1HK = self.key(z_B1D).unflatten(-1, (self.heads, -1))
        logits_BHP1 = q_BPHK.transpose(1, 2) @ k_B1HK.permute(0, 2, 3, 1)
        logits_BHP = logits_BHP1.squeeze(-1) / q_BPHK.shape[-1] ** 0.5 + self.shift
        return logits_BHP.sigmoid().mean(dim=1)

    def _drawn(self, informs_BP: Tensor, there_BP: Tensor) -> Tensor:
        chance_BP = informs_BP.float().clamp(EPS, 1 - EPS)
        keep_BP = torch.bernoulli(chance_BP.detach()).bool() & there_BP
        log_BP = torch.where(keep_BP, chance_BP, 1 - chance_BP).log() * there_BP
        self.log_prob_B = log_BP.sum(dim=1) / there_BP.sum(dim=1)
        self.kept_B = keep_BP.sum(dim=1) / there_BP.sum(dim=1)
        return keep_BP


def build_iared(rule: IARed, architecture: Architecture, width: int) -> dict[int, TokenReducer]:
    """One reducer for each chosen block; none where nothing is low enough."""
    if not rule.below:
        return {}
    prefix, heads = architecture.num_prefix_tokens, architecture.heads
    return {
        block: IARedReducer(rule.below, width=width, heads=heads, num_prefix=prefix)
        for block in rule.active_blocks(architecture.depth)
    }


@contextmanager
def iared_losses(
    model: VisionTransformer,
    rule: IARed,
    teacher: VisionTransformer,  # noqa: ARG001
) -> Iterator[tuple[LossTerm, ...]]:
    """What is added to the recipe's loss while interpreters train (Pan et al., 2021, Eq. 3-5).

    R = 1 - u^2 for a right answer and -penalty for a wrong one, u the mean share of patches kept;
    L = - mean over images of (R - mean R) * sum over interpreters of the mean log-probability of what they chose

    The mean reward of the batch is the baseline, where the paper takes the reward of the most probable choice.

    Args:
        model: With the reducers.
        rule: Its penalty.
        teacher: Unused.
    """
    reducers = [block.reducer for block in model.blocks if isinstance(block.reducer, IARedReducer)]

    def loss(outputs: Outputs, batch: Batch) -> Tensor:
        labels_B = batch.targets if batch.targets.dim() == 1 else batch.targets.argmax(dim=-1)
        kept_B = torch.stack([one.kept_B for one in reducers if one.kept_B is not None]).mean(dim=0)
        log_B = torch.stack([one.log_prob_B for one in reducers if one.log_prob_B is not None]).sum(dim=0)
        right_B = outputs.logits_BK.argmax(dim=-1) == labels_B
        reward_B = torch.where(right_B, 1 - kept_B.square(), -rule.penalty)
        return -((reward_B - reward_B.mean()) * log_B).mean()

    try:
        yield (loss,) if reducers else ()
    finally:
        for one in reducers:
            one.log_prob_B = one.kept_B = None
