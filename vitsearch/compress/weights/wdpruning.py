"""WDPruning: saliency and a learned threshold for the width, classifiers after the blocks for the depth.

Shape suffixes: B batch, N tokens, D channels or inputs of a projection, U units, K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitsearch.compress.weights.context import PruneContext, Ranked
from vitsearch.compress.weights.learning import BUDGET_WEIGHT, epochs_to_learn, share_of_macs, unit_inputs
from vitsearch.compress.weights.magnitude import rank_magnitude
from vitsearch.compress.weights.units import BlockUnits, Units
from vitsearch.models import VisionTransformer
from vitsearch.models.vit import LAYER_NORM_EPS
from vitsearch.train.batches import Batch
from vitsearch.train.losses import LossTerm, Outputs, cross_entropy

THRESHOLD = 0.5  # where it starts, relative to the mean saliency of the layer
TINY = 1e-12
RATE = 30.0  # saliency and threshold move this much faster than weights would


class SalientLinear(nn.Module):
    """y = W diag(m) x + b with m_u = 1 where unit u is more salient than the threshold, else 0.

    Args:
        layer: The trained projection, taken over.
        saliency_U: Where saliency starts; positive.
    """

    def __init__(self, layer: nn.Linear, saliency_U: Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.repeats = layer.in_features // len(saliency_U)
        self.raw_saliency_U = nn.Parameter(saliency_U / saliency_U.mean().clamp_min(TINY) / RATE)
        self.raw_threshold = nn.Parameter(saliency_U.new_tensor(THRESHOLD / RATE))

    def margin_U(self) -> Tensor:
        """How far each unit is above the threshold."""
        return RATE * (self.raw_saliency_U - self.raw_threshold)

    def mask_U(self) -> Tensor:
        """Zeros and ones; the gradient is that of the margin, straight through."""
        margin_U = self.margin_U()
        return (margin_U > 0).to(margin_U) + margin_U - margin_U.detach()

    def forward(self, x_BND: Tensor) -> Tensor:
        """Mask, then project."""
        out: Tensor = self.layer(x_BND * self.mask_U().repeat_interleave(self.repeats))
        return out


class Auxiliary(nn.Module):
    """A linear classifier before the first block and after each, which watches the network without changing it.

    Args:
        model: What it watches.
    """

    def __init__(self, model: VisionTransformer) -> None:
        super().__init__()
        a, width = model.architecture, model.widths[0].width
        self.pooled = a.pool == "avg"
        self.prefix = a.num_prefix_tokens
        self.heads = nn.ModuleList(nn.Linear(width, a.num_classes) for _ in range(len(model.widths) + 1))
        for head in self.heads:
            assert isinstance(head, nn.Linear)
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        self.to(model.pos_embed)
        self._states: list[Tensor] = []

    @contextmanager
    def watching(self, model: VisionTransformer) -> Iterator[None]:
        """Keep what enters and leaves the blocks of each forward pass inside the ``with`` block."""
        first, blocks = model.blocks[0], list(model.blocks)

        def begin(block: nn.Module, inputs: tuple[Tensor, ...]) -> None:  # noqa: ARG001
            self._states = [self._features(inputs[0])]

        def after(block: nn.Module, inputs: object, output: tuple[Tensor, object]) -> None:  # noqa: ARG001
            self._states.append(self._features(output[0]))

        handles = [first.register_forward_pre_hook(begin), *(one.register_forward_hook(after) for one in blocks)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def losses(self, targets: Tensor) -> Tensor:
        """Cross-entropy of every classifier on the last forward pass, (depth + 1,)."""
        pairs = zip(self.heads, self._states, strict=True)
        return torch.stack([cross_entropy(head(state_BD), targets, 0.0) for head, state_BD in pairs])

    def _features(self, x_BND: Tensor) -> Tensor:
        x_BD = x_BND[:, self.prefix :].mean(dim=1) if self.pooled else x_BND[:, 0]
        return F.layer_norm(x_BD.detach().to(self.heads[0].weight), x_BD.shape[-1:], eps=LAYER_NORM_EPS)  # type: ignore[arg-type]


def rank_wdpruning(model: VisionTransformer, context: PruneContext) -> Ranked:
    """Saliency above a learned threshold, and what each block adds for a classifier after it.

    The rule (Yu et al., 2022, *Width and Depth Pruning for Vision Transformers*), with the saliency S_u of a unit
    and the threshold theta of its layer::

        x_u* = x_u m_u,  m_u = 1 where S_u > theta, else 0,  dm_u/dS_u = 1,  dm_u/dtheta = -1
        loss + 10 (R - R*)^2 + mean over l of CE(classifier_l(x_l))
        score_u = S_u - theta,  score of block l = CE_l-1 - CE_l

    R is the share of MACs that the masks leave, R* that of the candidate; x_l the tokens after block l, x_0 those
    before the first. S starts at the unit's weight norm relative to its layer's mean. Network, saliency and
    classifiers train together for the first half of the epochs, rounded up; then masks and classifiers go. Scores
    of heads and hidden units compare across layers and kinds, because each is told from its own layer's threshold.
    Channels and the dimensions of a head rank by magnitude.

    The paper cuts the last blocks, behind the first classifier that is good enough. Here the candidate says how
    many stay, so the classifiers, whose losses are taken on ``context.batches`` in the end, say which: those that
    add most. They do not train the network, which has no exits in the end; where there are no batches, the last
    blocks go. The paper's regulariser has a linear term and counts parameters; here it is R, in MACs.

    Raises:
        ValueError: There are no epochs to train in.
    """
    epochs = epochs_to_learn(context, "wdpruning")
    magnitudes = rank_magnitude(model, context).scores
    masked = copy.deepcopy(model)
    masked.set_reducers({})
    for magnitude, inputs in zip(magnitudes.blocks, unit_inputs(masked), strict=True):
        for (parent, name), saliency_U in zip(inputs, (magnitude.heads_H, magnitude.mlp_units_M), strict=True):
            if not isinstance(getattr(parent, name), SalientLinear):  # blocks that share their weights share masks
                setattr(parent, name, SalientLinear(getattr(parent, name), saliency_U))
    layers = _layers_of(masked)
    auxiliary = masked.auxiliary = Auxiliary(masked)  # a part of it while it trains
    with auxiliary.watching(masked):
        context.train(masked, epochs, (budget_loss(masked, context), auxiliary_loss(auxiliary)))
        gains = _gains(masked, auxiliary, context)
    del masked.auxiliary
    for inputs in unit_inputs(masked):
        for parent, name in inputs:
            layer = getattr(parent, name)
            setattr(parent, name, getattr(layer, "layer", layer))
    margins = [layer.margin_U().detach() for layer in layers]
    after = rank_magnitude(masked, context).scores
    blocks = tuple(
        BlockUnits(mlp_units_M=units_M, heads_H=heads_H, qk_HQ=one.qk_HQ, v_HV=one.v_HV, block=gain)
        for one, heads_H, units_M, gain in zip(after.blocks, margins[::2], margins[1::2], gains, strict=True)
    )
    return Ranked(masked, Units(channels_D=after.channels_D, blocks=blocks), epochs, across_kinds=True)


def budget_loss(model: VisionTransformer, context: PruneContext) -> LossTerm:
    """The summand 10 (R - R*)^2."""
    layers, tokens = _layers_of(model), context.tokens_of(model)

    def loss(outputs: Outputs, batch: Batch) -> Tensor:  # noqa: ARG001
        masks = [layer.mask_U() for layer in layers]
        share = share_of_macs(model, tokens, list(zip(masks[::2], masks[1::2], strict=True)))
        return BUDGET_WEIGHT * (share - context.macs_share) ** 2

    return loss


def _layers_of(model: VisionTransformer) -> list[SalientLinear]:
    """The masked layers of every block, those of heads and of hidden units in turn."""
    found = [getattr(parent, name) for inputs in unit_inputs(model) for parent, name in inputs]
    return [layer for layer in found if isinstance(layer, SalientLinear)]


def auxiliary_loss(auxiliary: Auxiliary) -> LossTerm:
    """The mean cross-entropy of all classifiers."""

    def loss(outputs: Outputs, batch: Batch) -> Tensor:  # noqa: ARG001
        return auxiliary.losses(batch.targets).mean()

    return loss


@torch.no_grad()
def _gains(model: VisionTransformer, auxiliary: Auxiliary, context: PruneContext) -> Tensor:
    """By how much the loss of the classifier after each block is less than that of the one before, (depth,)."""
    was_training = model.training
    model.eval()
    total = model.pos_embed.new_zeros(len(model.widths) + 1)
    for images_BCHW, labels_B in context.batches:
        model(images_BCHW)
        total += len(labels_B) * auxiliary.losses(labels_B)
    model.train(was_training)
    return (total[:-1] - total[1:]) / max(1, sum(len(labels_B) for _, labels_B in context.batches))
