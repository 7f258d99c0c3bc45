"""The training split in augmented batches, a function of (recipe, seed, epoch, step).

Shape suffixes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vitsearch.config import TrainSpec
from vitsearch.train.augment import Augmenter
from vitsearch.train.seeds import seed_everything
from vitsearch.train.tensors import TensorData


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One step's images.

    Attributes:
        images_BCHW: Augmented and normalised.
        targets: Class indices (B,), or class probabilities (B, K) under mixup.
        epoch: From 0.
        step: Number within its epoch, from 0.
        start: Images of the epoch before this batch.
    """

    images_BCHW: Tensor
    targets: Tensor
    epoch: int
    step: int
    start: int


class TrainingBatches:
    """Every image of the training split once an epoch (or a part of them several times), in even batches.

    Args:
        data: The data set.
        spec: Batch size and augmentation.
    """

    def __init__(self, data: TensorData, spec: TrainSpec) -> None:
        self._data = data
        self._indices = torch.from_numpy(np.ascontiguousarray(data.source.train))
        self._augment = Augmenter(spec, data.mean, data.std)
        self._repeats = spec.repeats
        self._mix = _mixup(spec, data.source.num_classes)
        self.steps = max(1, math.ceil(len(self._indices) / spec.batch_size))
        if self._mix is not None:
            self.steps = min(self.steps, max(1, len(self._indices) // 2))  # mixup needs pairs

    def __len__(self) -> int:
        """Images of an epoch."""
        return len(self._indices)

    def epoch(self, epoch: int, seed: int) -> Iterator[Batch]:
        """The batches of one epoch; nothing but the arguments decides their order and augmentation."""
        seed_everything(seed, epoch)
        order = repeated(self._indices[torch.randperm(len(self._indices))], self._repeats)
        start = 0
        for step, part in enumerate(split_evenly(order, self.steps, pairs=self._mix is not None)):
            seed_everything(seed, epoch, step)
            images_BCHW = self._augment(self._data.raw(part))
            targets = self._data.labels_N[part.to(self._data.device)]
            if self._mix is not None and len(images_BCHW) > 1:
                images_BCHW, targets = self._mix(images_BCHW, targets)
            yield Batch(images_BCHW=images_BCHW, targets=targets, epoch=epoch, step=step, start=start)
            start += len(part)


def repeated(order: Tensor, repeats: int) -> Tensor:
    """As many indices, of 1/repeats of the images: the views of one image follow each other, into one batch."""
    return order.repeat_interleave(repeats)[: len(order)] if repeats > 1 else order


def split_evenly(order: Tensor, steps: int, *, pairs: bool) -> tuple[Tensor, ...]:
    """``order`` in ``steps`` parts of nearly equal length.

    timm's Mixup pairs images, so for it (``pairs``) every part has an even length; of an odd number of images the
    last, which differs from epoch to epoch, is left out.
    """
    if not pairs or len(order) < 2:
        return order.tensor_split(steps)
    half = len(order) // 2
    return order[: 2 * half].tensor_split([2 * (half * i // steps) for i in range(1, steps)])


def _mixup(spec: TrainSpec, num_classes: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    if not (spec.mixup or spec.cutmix):
        return None
    from timm.data import Mixup

    mixer: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = Mixup(
        spec.mixup, spec.cutmix, label_smoothing=spec.label_smoothing, num_classes=num_classes
    )
    return mixer
