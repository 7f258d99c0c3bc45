"""X-Pruner: a mask for each unit and class, and a threshold for each layer.

Shape suffixes: B batch, N tokens, D inputs of a projection, U units, K classes.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitsearch.compress.weights.context import PruneContext, Ranked
from vitsearch.compress.weights.learning import BUDGET_WEIGHT, epochs_to_learn, share_of_macs, unit_inputs
from vitsearch.compress.weights.magnitude import rank_magnitude
from vitsearch.compress.weights.units import BlockUnits, Units
from vitsearch.models import VisionTransformer
from vitsearch.train.batches import Batch
from vitsearch.train.losses import LossTerm, Outputs, cross_entropy

SPARSITY, SMOOTHNESS = 1e-4, 1e-4
THRESHOLD, SOFTNESS = 0.5, 0.1  # where thresholds start, and the width of the step there
RATE = 10.0  # masks and thresholds move this much faster than weights would


class ExplainedLinear(nn.Module):
    """y = W diag(m) x + b, where m depends on the class of the image; without a class, m = 1.

    Args:
        layer: The trained projection, taken over.
        units: How many there are among its inputs: D hidden units, or H heads of D / H values each.
        classes: K.
    """

    def __init__(self, layer: nn.Linear, units: int, classes: int) -> None:
        super().__init__()
        self.layer = layer
        self.repeats = layer.in_features // units
        self.raw_mask_UK = nn.Parameter(layer.weight.new_full((units, classes), 1 / RATE))
        self.raw_threshold = nn.Parameter(layer.weight.new_tensor(THRESHOLD / RATE))
        self.targets_BK: Tensor | None = None

    @property
    def mask_UK(self) -> Tensor:
        """What each unit contributes to each class, 1 before training."""
        return RATE * self.raw_mask_UK

    def margin_U(self) -> Tensor:
        """How far each unit is above the layer's threshold: sum_k abs(M_uk) / K - theta."""
        return self.mask_UK.abs().mean(dim=1) - RATE * self.raw_threshold

    def gate_U(self) -> Tensor:
        """Whether each unit stays, softly."""
        return (self.margin_U() / SOFTNESS).sigmoid()

    def forward(self, x_BND: Tensor) -> Tensor:
        """Mask, then project."""
        if self.targets_BK is not None:
            mask_BU = (self.targets_BK @ self.mask_UK.T) * self.gate_U()
            x_BND = x_BND * mask_BU.repeat_interleave(self.repeats, dim=1)[:, None]
        out: Tensor = self.layer(x_BND)
        return out


def rank_xpruner(model: VisionTransformer, context: PruneContext) -> Ranked:
    """Masks that explain each class by the units it needs, and thresholds that decide where there are too many.

    The rule (Yu and Xiang, 2023, *X-Pruner: eXplainable Pruning for Vision Transformers*; survey Eq. 18), with the
    mask M (U, K) of a layer's units and its threshold theta, for an image of class c::

        x_u* = x_u M_uc g_u,  g_u = sigmoid((sum_k abs(M_uk) / K - theta) / 0.1)
        loss = CE + sum_u sum_k (1e-4 abs(M_uk) + 1e-4 (M_uk - mean_k M_uk)^2) / K + 10 (R - R*)^2
        score_u = sum_k abs(M_uk) / K - theta

    R is the share of MACs that the g leave, R* that of the candidate. Heads and hidden units have masks, and their
    scores compare across layers and kinds, because each is told from its own layer's threshold. A block has the
    mean of its scores. Channels and the dimensions of a head have no mask and rank by magnitude.

    The paper trains network and masks together; here the network stays as it was trained, and only masks and
    thresholds learn, for the first half of the epochs, rounded up: the masks explain the network that is pruned.
    Of the paper's constraints this is the form that needs no order of the classes.

    Raises:
        ValueError: There are no epochs to train in.
    """
    epochs = epochs_to_learn(context, "xpruner")
    explained = copy.deepcopy(model).requires_grad_(requires_grad=False)
    explained.set_reducers({})
    for block, places in zip(model.widths, unit_inputs(explained), strict=True):
        for (parent, name), units in zip(places, (block.heads, block.mlp_units), strict=True):
            layer = getattr(parent, name)
            if not isinstance(layer, ExplainedLinear):  # blocks that share their weights share masks
                setattr(parent, name, ExplainedLinear(layer, units, model.architecture.num_classes))
    layers = _layers_of(explained)
    context.train(explained, epochs, (explanation_loss(explained, context),))
    margins = [layer.margin_U().detach() for layer in layers]
    return Ranked(model, _scores(model, margins), epochs, across_kinds=True)


def explanation_loss(model: VisionTransformer, context: PruneContext) -> LossTerm:
    """The whole loss of the masks; the recipe's own is that of the network without them, which stands still."""
    layers, tokens = _layers_of(model), context.tokens_of(model)

    def loss(outputs: Outputs, batch: Batch) -> Tensor:
        targets = batch.targets
        classes = outputs.cls_BK.shape[1]
        targets_BK = F.one_hot(targets, classes).to(outputs.cls_BK) if targets.dim() == 1 else targets
        for layer in layers:
            layer.targets_BK = targets_BK
        try:
            logits_BK = model(batch.images_BCHW)
        finally:
            for layer in layers:
                layer.targets_BK = None
        gates = [layer.gate_U() for layer in layers]
        share = share_of_macs(model, tokens, list(zip(gates[::2], gates[1::2], strict=True)))
        found = cross_entropy(logits_BK.float(), targets, 0.0) + BUDGET_WEIGHT * (share - context.macs_share) ** 2
        return found + torch.stack([_constraints(layer.mask_UK) for layer in dict.fromkeys(layers)]).sum()

    return loss


def _layers_of(model: VisionTransformer) -> list[ExplainedLinear]:
    """The masked layers of every block, those of heads and of hidden units in turn."""
    found = [getattr(parent, name) for places in unit_inputs(model) for parent, name in places]
    return [layer for layer in found if isinstance(layer, ExplainedLinear)]


def _constraints(mask_UK: Tensor) -> Tensor:
    spread_U = mask_UK.var(dim=1, correction=0)
    return SPARSITY * mask_UK.abs().mean(dim=1).sum() + SMOOTHNESS * spread_U.sum()


def _scores(model: VisionTransformer, margins: list[Tensor]) -> Units:
    magnitudes = rank_magnitude(model, PruneContext()).scores
    return Units(
        channels_D=magnitudes.channels_D,
        blocks=tuple(
            BlockUnits(
                mlp_units_M=units_M,
                heads_H=heads_H,
                qk_HQ=magnitude.qk_HQ,
                v_HV=magnitude.v_HV,
                block=torch.cat([heads_H, units_M]).mean(),
            )
            for magnitude, heads_H, units_M in zip(magnitudes.blocks, margins[::2], margins[1::2], strict=True)
        ),
    )
