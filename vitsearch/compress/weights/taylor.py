"""Taylor pruning: units rank by how much the loss would change without them, to first order."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vitsearch.compress.weights.context import PruneContext, Ranked
from vitsearch.compress.weights.units import Units, parameters_of, unit_sums
from vitsearch.models import VisionTransformer


def rank_taylor(model: VisionTransformer, context: PruneContext) -> Ranked:
    """score_u = sum over batches b of (sum over the weights w of unit u of w dL_b/dw)^2.

    L_b is the mean cross-entropy of batch b, without dropout. Squares are taken batch by batch: at the end of
    training the gradients of all batches together are near zero (Molchanov et al., 2019, *Importance Estimation
    for Neural Network Pruning*, Eq. 8 and Section 3.1).

    Raises:
        ValueError: There are no batches.
    """
    if not context.batches:
        raise ValueError("the taylor ranking needs labelled batches; give them in PruneContext.batches")
    was_training = model.training
    model.eval()
    try:
        found = [_of_batch(model, images_BCHW, labels_B) for images_BCHW, labels_B in context.batches]
    finally:
        model.train(was_training)
    total = found[0]
    for one in found[1:]:
        total = total.plus(one)
    return Ranked(model, total)


def _of_batch(model: VisionTransformer, images_BCHW: torch.Tensor, labels_B: torch.Tensor) -> Units:
    names, parameters = zip(*model.named_parameters(), strict=True)
    with torch.enable_grad():
        loss = F.cross_entropy(model(images_BCHW), labels_B)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    weights = parameters_of(model)
    products = {
        name: torch.zeros_like(weights[name]) if gradient is None else weights[name] * gradient
        for name, gradient in zip(names, gradients, strict=True)
    }
    return unit_sums(model, products).map(torch.Tensor.square)
