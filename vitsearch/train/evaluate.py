"""Scoring a network on one split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitsearch.errors import TrialError
from vitsearch.train.tensors import TensorData


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a network achieves on a split.

    Attributes:
        accuracy: Share of images whose largest logit is the right class, 0 to 1.
        loss: Mean cross-entropy.
    """

    accuracy: float
    loss: float


def normalized_batches(
    data: TensorData, indices: npt.NDArray[np.int64], batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (B, C, H, W), normalised, and labels (B,), in the order of ``indices``."""
    for start in range(0, len(indices), batch_size):
        batch = torch.from_numpy(np.ascontiguousarray(indices[start : start + batch_size]))
        yield data.normalized(batch), data.labels_N[batch.to(data.labels_N.device)]


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    data: TensorData,
    indices: npt.NDArray[np.int64],
    *,
    batch_size: int,
    on_batch: Callable[[], None] = lambda: None,
) -> Score:
    """Score in float32 and evaluation mode.

    Args:
        model: The network; its training mode is restored.
        data: Images and labels.
        indices: The split.
        batch_size: Images of one forward pass.
        on_batch: Called between batches; may block or raise.

    Raises:
        TrialError: A logit is not finite.
    """
    was_training = model.training
    model.eval()
    correct = torch.zeros((), dtype=torch.long)
    loss = torch.zeros((), dtype=torch.float64)
    for images_BCHW, labels_B in normalized_batches(data, indices, batch_size):
        logits_BC = model(images_BCHW)
        correct += (logits_BC.argmax(dim=-1) == labels_B).sum().cpu()
        loss += F.cross_entropy(logits_BC.double(), labels_B, reduction="sum").cpu()
        on_batch()
    model.train(was_training)
    mean_loss = float(loss) / max(1, len(indices))
    if not np.isfinite(mean_loss):
        raise TrialError("evaluate", "nan_loss", "the network's outputs are not finite")
    return Score(accuracy=int(correct) / max(1, len(indices)), loss=mean_loss)
