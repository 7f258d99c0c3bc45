"""Losses that listen to what a teacher computes on the way to its answer.

Shape suffixes: B batch, N tokens, P patches, D width of the student, T width of the teacher, X any width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitsearch.config import INNER_DISTILLERS, DistillSpec
from vitsearch.config.named import Imported
from vitsearch.models import VisionTransformer
from vitsearch.train.batches import Batch
from vitsearch.train.distill.answers import LiveAnswers
from vitsearch.train.distill.seen import (
    Seen,
    height_of,
    is_plain_vit,
    num_blocks,
    patches_of,
    resampled,
    seen_by,
    watching,
)
from vitsearch.train.losses import LossTerm, Outputs

RANDOM_PATCHES = 192


class InnerDistiller(Protocol):
    """A loss between what student and teacher have computed."""

    def __call__(self, student_BPX: dict[str, Tensor], teacher_BPX: dict[str, Tensor]) -> Tensor:
        """A scalar.

        Args:
            student_BPX: Patch tokens under ``tokens``, projected to the teacher's width, and as they are under
                ``own``; ``q``, ``k`` and ``v`` where the teacher has them. All of as many patches.
            teacher_BPX: Likewise.
        """
        ...


def tokens(student: dict[str, Tensor], teacher: dict[str, Tensor]) -> Tensor:
    """L = mean over images, patches and channels of (P z_s - LayerNorm(z_t))^2 (Romero et al., 2015, Eq. 3).

    P is a linear map that is learned with the student, and LayerNorm is without parameters: it takes the few
    channels of a trained ViT that are hundreds of times as large as the others to the size of the rest.
    """
    z_BPT = teacher["tokens"]
    return F.mse_loss(student["tokens"], F.layer_norm(z_BPT, z_BPT.shape[-1:]))


def manifold(student: dict[str, Tensor], teacher: dict[str, Tensor]) -> Tensor:
    """Relations of patches within an image, across images, and over random patches (Hao et al., 2022, Eq. 4-7).

    With M(Z) = Z Z^T of patches whose features are normalised to length 1, L is the sum of three means of
    (M(z_s) - M(z_t))^2: over the P x P pairs of patches of one image, over the B x B pairs of images at one place,
    and over the pairs of 192 random patches of the batch. The paper weighs the three 4, 0.1 and 0.2 and sums where
    this takes means.
    """
    ours_BPD, theirs_BPT = (F.normalize(one, dim=-1) for one in (student["own"], teacher["tokens"]))
    within = F.mse_loss(_gram(ours_BPD), _gram(theirs_BPT))
    across = F.mse_loss(_gram(ours_BPD.transpose(0, 1)), _gram(theirs_BPT.transpose(0, 1)))
    count = ours_BPD.shape[0] * ours_BPD.shape[1]
    chosen = torch.randperm(count, device=ours_BPD.device)[:RANDOM_PATCHES]
    ours, theirs = ours_BPD.flatten(0, 1)[chosen], theirs_BPT.flatten(0, 1)[chosen]
    return within + across + F.mse_loss(_gram(ours[None]), _gram(theirs[None]))


def minivit(student: dict[str, Tensor], teacher: dict[str, Tensor]) -> Tensor:
    """Relations of queries, keys and values (MiniViT: Zhang et al., 2022; survey Eq. 20-22).

    With S_1, S_2, S_3 the queries, keys and values of all heads side by side, of width d, and
    R_ij = softmax(S_i S_j^T / sqrt(d)) over patches::

        L = mean over i, j and rows n of CE(R_ij,n of the student, R_ij,n of the teacher)
    """
    total = torch.zeros((), device=student["q"].device)
    for one in "qkv":
        for other in "qkv":
            log_BPP = _logits(student[one], student[other]).log_softmax(dim=-1)
            target_BPP = _logits(teacher[one], teacher[other]).softmax(dim=-1)
            total = total - (target_BPP * log_BPP).sum(dim=-1).mean()
    return total / 9


def _gram(z: Tensor) -> Tensor:
    return z @ z.transpose(-1, -2)


def _logits(a_BPX: Tensor, b_BPX: Tensor) -> Tensor:
    return a_BPX @ b_BPX.transpose(1, 2) / math.sqrt(a_BPX.shape[-1])


_INNER: Imported[InnerDistiller] = Imported(INNER_DISTILLERS)


@contextmanager
def inner_losses(
    spec: DistillSpec, student: VisionTransformer, teacher: LiveAnswers | None, epochs: int
) -> Iterator[tuple[LossTerm, ...]]:
    """The summands w L while a student trains inside the ``with`` block; nothing where the recipe asks for none.

    Student and teacher are compared by the patches that leave the last block in which the student still has all of
    them in their places, and the block of the teacher that is as far up, or its last one before any leave. Where
    their grids differ, the teacher's is resampled (bilinear). A teacher that is no plain ViT, as a CNN or Swin, is
    taken by the features that it returns. Only patches count. A student that loses patches in its first block
    has nothing to compare, and the summands are 0; recipes that would train so from the start are refused before.
    With ``until`` < 1 the summands end after that share of the epochs (DearKD: Chen et al., 2022).

    Args:
        spec: Which losses, their weights, and until when.
        student: Gets a projection ``distill_projection`` as a part of it meanwhile where ``tokens`` needs one, so
            that it trains along.
        teacher: Asked for every batch; such answers are too large to be remembered.
        epochs: Of this training.
    """
    if not spec.inner_weights or teacher is None or not epochs:
        yield ()
        return
    ours, last = Seen(), math.ceil(spec.until * epochs)
    projection: nn.Linear | None = None
    if "tokens" in spec.inner_weights:
        projection = nn.Linear(student.widths[0].width, _width(teacher)).to(student.pos_embed)
        student.distill_projection = projection

    def loss(outputs: Outputs, batch: Batch) -> Tensor:  # noqa: ARG001
        total = torch.zeros((), device=batch.images_BCHW.device)
        if batch.epoch >= last or not ours.complete:
            return total
        student_BPX, teacher_BPX = _compared(student, ours, teacher, seen_by(teacher, batch.images_BCHW))
        if projection is not None:
            student_BPX["tokens"] = projection(student_BPX["own"])
        for name, weight in spec.inner_weights.items():
            total = total + weight * _INNER[name](student_BPX, teacher_BPX)
        return total

    try:
        with watching(student, ours):
            yield (loss,)
    finally:
        if projection is not None:
            del student.distill_projection


def _width(teacher: LiveAnswers) -> int:
    return int(_teacher_patches(teacher, seen_by(teacher, teacher.example()), 1.0).shape[-1])


def _teacher_patches(teacher: LiveAnswers, seen: Seen, share: float) -> Tensor:
    """Patches (B, P, T) of a teacher, of which ``check_inner`` has found that it has some."""
    network = teacher.network
    plain = is_plain_vit(network)
    features = seen.blocks[height_of(seen, network, share)] if plain else seen.final
    patches_BPT = None if features is None else patches_of(features, network)
    assert patches_BPT is not None, "check_inner has refused such a teacher"
    return patches_BPT.float()


def _compared(
    student: VisionTransformer, ours: Seen, teacher: LiveAnswers, theirs: Seen
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What both have computed at the same height and on the same grid."""
    a = student.architecture
    blocks = num_blocks(student)
    complete = min(ours.complete, blocks)
    share, side = complete / blocks, a.image_size // a.patch_size
    own_BPD = ours.blocks[complete - 1][:, a.num_prefix_tokens :].float()
    mine = {"own": own_BPD}
    yours = {"tokens": resampled(_teacher_patches(teacher, theirs, share), side)}
    if theirs.parts:
        network, count = teacher.network, own_BPD.shape[1]
        grid = patches_of(theirs.blocks[0], network)
        assert grid is not None
        height = height_of(theirs, network, share)
        for name, x_BNX, y_BNX in zip("qkv", ours.parts[complete - 1], theirs.parts[height], strict=True):
            mine[name] = x_BNX[:, -count:].float()
            yours[name] = resampled(y_BNX[:, -grid.shape[1] :].float(), side)
    return mine, yours
