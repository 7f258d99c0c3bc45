"""DynamicViT on a running network, and what trains it.

Shape suffixes: B batch, N tokens, P patches, D width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitsearch.candidate import Architecture, DynamicViT
from vitsearch.candidate.tokens.dynamicvit import predictor_widths
from vitsearch.compress.tokens.kernels import gather_tokens
from vitsearch.compress.tokens.scores import ones_unless, split_by_score
from vitsearch.models import Block, TokenRoute, TokenState, VisionTransformer
from vitsearch.train.batches import Batch
from vitsearch.train.distill.losses import softened_divergence
from vitsearch.train.losses import LossTerm, Outputs

EPS = 1e-6
RATIO_WEIGHT, DISTILL_WEIGHT = 2.0, 0.5


class DynamicViTRoute(nn.Module, TokenRoute):
    """Chooses patches before its block.

    The rule (Rao et al., 2021, Eq. 3-7), with D the choices so far, 1 for every patch at first::

        z = gelu(W LayerNorm(x));  local = the first half of z,  global = sum_i D_i z_i / sum_i D_i of the second
        log pi_i = log softmax(MLP([local_i, global]))
        evaluation: the k patches of the largest pi_i(keep) go on
        training:   D <- D * (the first of Gumbel-softmax(log pi), hard, straight-through), and no patch leaves:
                    A_ij = exp(q_i k_j) D_j / sum_l exp(q_i k_l) D_l

    In training D is the size of a token, and a millionth more, so that its logarithm has a derivative. A patch
    that was dropped does not attend to itself either, where the paper lets it; no other token notices it.

    Args:
        num_kept: k.
        target: Share of all patches that is left after this choice, for the loss.
        width: D, of tokens.
        num_prefix: Leading tokens, which always go on.
    """

    def __init__(self, num_kept: int, *, target: float, width: int, num_prefix: int) -> None:
        super().__init__()
        self.num_kept, self.target, self.num_prefix = num_kept, target, num_prefix
        h, q = predictor_widths(width)
        self.features = nn.Sequential(nn.LayerNorm(width, eps=EPS), nn.Linear(width, 2 * h), nn.GELU())
        self.choice = nn.Sequential(nn.Linear(2 * h, h), nn.GELU(), nn.Linear(h, q), nn.GELU(), nn.Linear(q, 2))
        self.policy_BP: Tensor | None = None  # the choices of the latest training pass

    def run(self, block: Block, state: TokenState) -> TokenState:
        """Choose, then run the block."""
        prefix, x_BND = self.num_prefix, state.x_BND
        if not self.training:
            patches_BPD = x_BND[:, prefix:]
            kept_BM, _ = split_by_score(self.log_probs(patches_BPD, None)[..., 0], self.num_kept)
            x_BND = torch.cat([x_BND[:, :prefix], gather_tokens(patches_BPD, kept_BM)], dim=1)
            x_BND, _ = block(x_BND)
            return TokenState(x_BND)
        size_BN = ones_unless(state.size_BN, x_BND)
        policy_BP = size_BN[:, prefix:]
        log_BP2 = self.log_probs(x_BND[:, prefix:], policy_BP).float()
        self.policy_BP = policy_BP * F.gumbel_softmax(log_BP2, hard=True)[..., 0]
        size_BN = torch.cat([size_BN[:, :prefix], self.policy_BP], dim=1)
        x_BND, size_BN = block(x_BND, size_BN)
        return TokenState(x_BND, size_BN)

    def log_probs(self, patches_BPD: Tensor, policy_BP: Tensor | None) -> Tensor:
        """Log pi, (B, P, 2): keep and drop."""
        local_BPh, other_BPh = self.features(patches_BPD).chunk(2, dim=-1)
        if policy_BP is None:
            global_B1h = other_BPh.mean(dim=1, keepdim=True)
        else:
            weight_BP1 = policy_BP.unsqueeze(-1)
            global_B1h = (other_BPh * weight_BP1).sum(1, keepdim=True) / (weight_BP1.sum(1, keepdim=True) + EPS)
        logits_BP2: Tensor = self.choice(torch.cat([local_BPh, global_B1h.expand_as(local_BPh)], dim=-1))
        return logits_BP2.log_softmax(dim=-1)


def build_dynamicvit(rule: DynamicViT, architecture: Architecture, width: int) -> dict[int, TokenRoute]:
    """A route for each block before which patches leave."""
    return {
        block: DynamicViTRoute(
            kept,
            target=kept / architecture.num_patches,
            width=width,
            num_prefix=architecture.num_prefix_tokens,
        )
        for block, (patches, kept) in rule.kept_per_block(architecture).items()
        if kept < patches
    }


@contextmanager
def dynamicvit_losses(
    model: VisionTransformer,
    rule: DynamicViT,  # noqa: ARG001
    teacher: VisionTransformer,
) -> Iterator[tuple[LossTerm, ...]]:
    """What is added to the recipe's loss while the routes train (Rao et al., 2021, Section 3.3).

    L = 2 mean over stages and images of (mean_i D_i - target)^2
        + 1/2 KL(teacher || student) + 1/2 mean over kept tokens and channels of (t_i - t'_i)^2

    with t the tokens after the last norm; the KL divergence is a mean over the batch. Where channels were pruned,
    tokens of the two networks cannot be compared, and the last summand is left out.

    Args:
        model: With the routes.
        rule: Unused; the routes have its settings.
        teacher: The network before any token left.
    """
    routes = [block.reducer for block in model.blocks if isinstance(block.reducer, DynamicViTRoute)]
    seen: list[Tensor] = []

    def watch(_: nn.Module, __: object, output_BND: Tensor) -> None:
        seen[:] = [output_BND]

    def loss(outputs: Outputs, batch: Batch) -> Tensor:
        policies = [route.policy_BP for route in routes if route.policy_BP is not None]
        ratio = torch.stack(
            [(p.mean(dim=1) - r.target).square().mean() for p, r in zip(policies, routes, strict=True)]
        ).mean()
        with torch.no_grad():
            theirs_BND = teacher.forward_features(batch.images_BCHW)
            theirs_BK = teacher.logits_of(theirs_BND)
        total = RATIO_WEIGHT * ratio
        total = total + DISTILL_WEIGHT * softened_divergence(theirs_BK, outputs.logits_BK, temperature=1.0)
        ours_BND = seen[0].float()
        if ours_BND.shape != theirs_BND.shape:
            return total
        kept_BP = policies[-1].detach()
        square_BP = (ours_BND - theirs_BND).square().mean(dim=-1)[:, -kept_BP.shape[1] :]
        return total + DISTILL_WEIGHT * (square_BP * kept_BP).sum() / kept_BP.sum().clamp_min(1.0)

    handle = model.norm.register_forward_hook(watch)
    teacher.eval()
    try:
        yield (loss,) if routes else ()
    finally:
        handle.remove()
        for route in routes:
            route.policy_BP = None
