"""What a teacher says about training batches: asked on the spot, or once per study and remembered.

Shape suffixes: B batch, C channels, H height, W width, K classes, E epochs, N images of an epoch, T answers kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitsearch.train.batches import Batch, TrainingBatches

SMALLEST_SHARE = 1e-8


class TeacherAnswers(Protocol):
    """Log-probabilities of a teacher."""

    def __call__(self, batch: Batch) -> Tensor:
        """Natural logarithms of class probabilities, float32, (B, K)."""
        ...


class LiveAnswers:
    """A teacher that sees each batch.

    Args:
        network: The teacher.
        image_size: Side of the images it was trained on; others are resized (bilinear, antialiased).
        in_chans: Channels it expects; grey images are repeated, colour is averaged.
        mean: Per channel, of its own normalisation, on a 0..1 scale.
        std: Per channel.
        student_mean: Normalisation of the batches, which is undone first.
        student_std: Likewise.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        image_size: int,
        in_chans: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        student_mean: Tensor,
        student_std: Tensor,
    ) -> None:
        device = student_mean.device
        self._network = network.to(device).eval()
        self._size, self._channels = image_size, in_chans
        self._mean = torch.tensor(mean, device=device).view(1, -1, 1, 1)
        self._std = torch.tensor(std, device=device).view(1, -1, 1, 1)
        self._student_mean, self._student_std = student_mean.view(1, -1, 1, 1), student_std.view(1, -1, 1, 1)

    @property
    def network(self) -> nn.Module:
        """The teacher itself."""
        return self._network

    def example(self) -> Tensor:
        """One grey image of the student's kind (1, C, S, S), to see what the teacher computes."""
        side = self._size
        return torch.zeros(1, self._student_mean.shape[1], side, side, device=self._mean.device)

    def prepared(self, images_BCHW: Tensor) -> Tensor:
        """Images normalised as the student's, as the teacher takes them."""
        x = images_BCHW * self._student_std + self._student_mean
        if x.shape[1] != self._channels:
            x = x.mean(dim=1, keepdim=True).expand(-1, self._channels, -1, -1)
        if x.shape[-1] != self._size:
            x = F.interpolate(x, size=(self._size, self._size), mode="bilinear", antialias=True)
        return (x - self._mean) / self._std

    @torch.inference_mode()
    def logits(self, images_BCHW: Tensor) -> Tensor:
        """The teacher's own outputs (B, K) on images normalised as the student's."""
        outputs: Tensor = self._network(self.prepared(images_BCHW))
        return outputs.float()

    def __call__(self, batch: Batch) -> Tensor:
        """Ask."""
        return self.logits(batch.images_BCHW).log_softmax(dim=-1).clone()  # out of inference mode


@dataclass(frozen=True, kw_only=True)
class RememberedAnswers:
    """The largest probabilities of a teacher for every image of some epochs.

    Attributes:
        classes_ENT: Class indices, most probable first.
        log_probs_ENT: Natural logarithms of their probabilities.
        num_classes: K.
    """

    classes_ENT: npt.NDArray[np.uint16]
    log_probs_ENT: npt.NDArray[np.float16]
    num_classes: int


class CachedAnswers:
    """Answers looked up; epochs that were not remembered are asked live (TinyViT: Wu et al., 2022, Section 3.1).

    The probability outside the remembered classes is spread evenly over the others.

    Args:
        remembered: What ``remember`` returned for the same batches.
        live: Who answers for further epochs; loaded when first needed.
    """

    def __init__(self, remembered: RememberedAnswers, live: Callable[[], TeacherAnswers]) -> None:
        self._remembered, self._load = remembered, live
        self._live: TeacherAnswers | None = None

    def __call__(self, batch: Batch) -> Tensor:
        """Look up, or ask."""
        kept = self._remembered
        if batch.epoch >= len(kept.classes_ENT):
            self._live = self._live or self._load()
            return self._live(batch)
        device, rows = batch.images_BCHW.device, slice(batch.start, batch.start + len(batch.images_BCHW))
        classes_BT = torch.from_numpy(kept.classes_ENT[batch.epoch, rows].astype(np.int64)).to(device)
        log_BT = torch.from_numpy(kept.log_probs_ENT[batch.epoch, rows].astype(np.float32)).to(device)
        others = max(1, kept.num_classes - classes_BT.shape[1])
        rest_B1 = (1 - log_BT.exp().sum(dim=1, keepdim=True)).clamp_min(SMALLEST_SHARE) / others
        return rest_B1.log().expand(-1, kept.num_classes).scatter(1, classes_BT, log_BT)


def remember(
    answers: TeacherAnswers, batches: TrainingBatches, *, seed: int, epochs: range, num_classes: int, top_k: int
) -> RememberedAnswers:
    """Ask a teacher about every batch of some epochs.

    Args:
        answers: The teacher.
        batches: What the students will see.
        seed: Seed of order and augmentation that the students will use.
        epochs: Which epochs.
        num_classes: K.
        top_k: Probabilities to keep of each answer.
    """
    kept = min(top_k, num_classes)
    classes_ENT = np.zeros((len(epochs), len(batches), kept), np.uint16)
    log_probs_ENT = np.zeros((len(epochs), len(batches), kept), np.float16)
    for row, epoch in enumerate(epochs):
        for batch in batches.epoch(epoch, seed):
            log_BT, classes_BT = answers(batch).topk(kept, dim=-1)
            rows = slice(batch.start, batch.start + len(batch.images_BCHW))
            classes_ENT[row, rows] = classes_BT.cpu().numpy()
            log_probs_ENT[row, rows] = log_BT.clamp_min(np.log(SMALLEST_SHARE)).cpu().numpy()
    return RememberedAnswers(classes_ENT=classes_ENT, log_probs_ENT=log_probs_ENT, num_classes=num_classes)
