"""What a training loss is computed from, and the loss of plain classification.

Shape suffixes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from vitsearch.models import mean_of_heads
from vitsearch.train.batches import Batch


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What the network says about one batch, in float32.

    Attributes:
        cls_BK: Logits of the classifier.
        dist_BK: Logits of each distillation head.
    """

    cls_BK: Tensor
    dist_BK: tuple[Tensor, ...] = ()

    @property
    def logits_BK(self) -> Tensor:
        """What evaluation would see: the mean of all heads."""
        return mean_of_heads((self.cls_BK, *self.dist_BK))

    @classmethod
    def of(cls, heads_BK: Sequence[Tensor]) -> Outputs:
        """What ``VisionTransformer.forward_heads`` has returned."""
        first_BK, *others = (one.float() for one in heads_BK)
        return cls(cls_BK=first_BK, dist_BK=tuple(others))


class LossTerm(Protocol):
    """One summand of the training loss; distillation and learned reducers bring theirs."""

    def __call__(self, outputs: Outputs, batch: Batch) -> Tensor:
        """A scalar."""
        ...


def classification_loss(label_smoothing: float, weight: float = 1.0) -> LossTerm:
    """Cross-entropy with label smoothing times a weight, for class indices and for mixup's soft targets alike."""

    def loss(outputs: Outputs, batch: Batch) -> Tensor:
        return weight * cross_entropy(outputs.logits_BK, batch.targets, label_smoothing)

    return loss


def cross_entropy(logits_BK: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Mean over the batch of -sum_k t_k log softmax(logits)_k.

    Args:
        logits_BK: Logits.
        targets: Class indices (B,), smoothed here, or class probabilities (B, K), which timm's Mixup has smoothed.
        label_smoothing: Mass spread evenly over all classes.
    """
    return F.cross_entropy(logits_BK, targets, label_smoothing=label_smoothing if targets.dim() == 1 else 0.0)
