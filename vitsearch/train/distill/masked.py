"""A network that teaches itself across images of one class.

SMKD (Lin et al., 2023, *Supervised Masked Knowledge Distillation for Few-Shot Transformers*). The teacher is the
moving average of the student. It sees whole images; the student sees them with patches masked, and answers for
another image of the same class.

Shape suffixes: B batch, P patches, D width, K prototypes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import trunc_normal_
from torch import Tensor, nn

from vitsearch.config import DistillSpec
from vitsearch.models import VisionTransformer
from vitsearch.train.batches import Batch
from vitsearch.train.distill.seen import Seen, watching
from vitsearch.train.losses import LossTerm, Outputs

PROTOTYPES, BOTTLENECK = 256, 64
STUDENT_TEMPERATURE, TEACHER_TEMPERATURE = 0.1, 0.04
FIRST_MOMENTUM, CENTRE_MOMENTUM = 0.996, 0.9
LEAST_MASKED, MOST_MASKED = 0.1, 0.5


class Views(NamedTuple):
    """What one side says about a batch.

    Attributes:
        cls_BK: Logits over prototypes of the whole image.
        patches_BPK: Likewise of each patch.
        features_BPD: The patches that these were computed from.
    """

    cls_BK: Tensor
    patches_BPK: Tensor
    features_BPD: Tensor


def smkd(teacher: Views, student: Views, partner_B: Tensor) -> Tensor:
    """L = L_cls + L_patch, each a mean over the batch.

    With P_t and P_s the softmax over prototypes at temperatures 0.04 and 0.1, j an image and i = partner(j)
    another of its class::

        L_cls = CE(P_t(cls_i), P_s(cls_j))
        L_patch = mean over patches p of i of CE(P_t(x_ip), P_s(x_jq)), q = argmax over q of cos(x_ip, x_jq)

    The paper sums over all pairs of a class; here each image has one partner, drawn anew for every batch. Its
    public code takes the teacher's answers for patches of the wrong view: not here.

    Args:
        teacher: Of whole images, centred.
        student: Of masked images.
        partner_B: Index of each image's partner.

    Returns:
        A scalar; without patches (P = 0), that of the images alone.
    """
    cls_loss = _cross_entropy(teacher.cls_BK[partner_B], student.cls_BK).mean()
    if not student.features_BPD.shape[1]:
        return cls_loss
    theirs_BPD, ours_BPD = F.normalize(teacher.features_BPD[partner_B], dim=-1), student.features_BPD
    nearest_BP = (theirs_BPD @ F.normalize(ours_BPD.detach(), dim=-1).mT).argmax(dim=-1)
    index_BPK = nearest_BP[..., None].expand(-1, -1, student.patches_BPK.shape[-1])
    matched_BPK = student.patches_BPK.gather(1, index_BPK)
    return cls_loss + _cross_entropy(teacher.patches_BPK[partner_B], matched_BPK).mean()


def partners(classes_B: Tensor) -> Tensor:
    """For each image another one of its class, drawn from torch's generator; itself where there is none (B,)."""
    same_BB = (classes_B[:, None] == classes_B[None, :]).fill_diagonal_(False)
    drawn_BB = torch.rand(same_BB.shape, device=classes_B.device).masked_fill(~same_BB, -1.0)
    found_B = drawn_BB.argmax(dim=1)
    alone_B = ~same_BB.any(dim=1)
    return torch.where(alone_B, torch.arange(len(found_B), device=found_B.device), found_B)


def random_masks(batch: int, num_patches: int, device: torch.device) -> Tensor:
    """Which patches are hidden (B, P): of each image a share of its own between 0.1 and 0.5, anywhere."""
    share_B1 = torch.empty(batch, 1, device=device).uniform_(LEAST_MASKED, MOST_MASKED)
    rank_BP = torch.rand(batch, num_patches, device=device).argsort(dim=1).argsort(dim=1)
    return rank_BP < share_B1 * num_patches


class SelfTeacher(nn.Module):
    """What training needs beside the network: heads, the mask token, the moving average and its centres.

    Args:
        student: Copied as the teacher.
    """

    mean_cls_K: Tensor
    mean_patches_K: Tensor

    def __init__(self, student: VisionTransformer) -> None:
        super().__init__()
        width = student.widths[0].width
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.head = _Head(width)
        trunc_normal_(self.mask_token, std=0.02)
        self.teacher = copy.deepcopy(student).requires_grad_(False)
        self.teacher_head = copy.deepcopy(self.head).requires_grad_(False)
        self.register_buffer("mean_cls_K", torch.zeros(PROTOTYPES))
        self.register_buffer("mean_patches_K", torch.zeros(PROTOTYPES))

    @torch.no_grad()
    def follow(self, student: VisionTransformer, share: float) -> None:
        """One step of the moving average; its momentum rises from 0.996 to 1 on a cosine of ``share``, 0 to 1."""
        momentum = 1 - (1 - FIRST_MOMENTUM) * (math.cos(math.pi * share) + 1) / 2
        ours, theirs = student.state_dict(), self.teacher.state_dict()
        pairs = [(theirs[name], ours[name]) for name in theirs]
        pairs += zip(self.teacher_head.state_dict().values(), self.head.state_dict().values(), strict=True)
        for kept, new in pairs:
            if kept.is_floating_point():
                kept.lerp_(new, 1 - momentum)
            else:
                kept.copy_(new)

    @torch.no_grad()
    def taught(self, images_BCHW: Tensor) -> Views:
        """The teacher's answers, centred by the moving mean of those before."""
        said = _views(self.teacher.eval(), self.teacher_head, images_BCHW)
        centred = Views(said.cls_BK - self.mean_cls_K, said.patches_BPK - self.mean_patches_K, said.features_BPD)
        self.mean_cls_K.lerp_(said.cls_BK.mean(dim=0), 1 - CENTRE_MOMENTUM)
        if said.patches_BPK.shape[1]:
            self.mean_patches_K.lerp_(said.patches_BPK.flatten(0, 1).mean(dim=0), 1 - CENTRE_MOMENTUM)
        return centred

    def learned(self, student: VisionTransformer, images_BCHW: Tensor, masks_BP: Tensor) -> Views:
        """The student's answers for masked images."""

        def hide(_: nn.Module, __: object, x_BPD: Tensor) -> Tensor:
            return torch.where(masks_BP[..., None], self.mask_token.to(x_BPD.dtype), x_BPD)

        handle = student.patch_embed.register_forward_hook(hide)
        try:
            return _views(student, self.head, images_BCHW)
        finally:
            handle.remove()


@contextmanager
def masked_losses(spec: DistillSpec, student: VisionTransformer, epochs: int) -> Iterator[tuple[LossTerm, ...]]:
    """The summand w L of ``smkd`` while a network trains in the ``with`` block; nothing where it is not asked for.

    It costs a second pass of the student and one of the teacher. Patches are those that leave the last block in
    which all of them still have their places. Under mixup the class is the more probable of the two.

    Args:
        spec: Its weight, and until when.
        student: Gets ``distill_self`` as a part of it meanwhile, so that heads and mask token train along and a
            checkpoint holds the teacher.
        epochs: Of this training.
    """
    if not spec.self_weight or not epochs:
        yield ()
        return
    own = SelfTeacher(student).to(student.pos_embed.device)
    last = math.ceil(spec.until * epochs)
    student.distill_self = own

    def loss(outputs: Outputs, batch: Batch) -> Tensor:  # noqa: ARG001
        if batch.epoch >= last:
            return torch.zeros((), device=batch.images_BCHW.device)
        own.follow(student, batch.epoch / epochs)
        classes_B = batch.targets if batch.targets.dim() == 1 else batch.targets.argmax(dim=1)
        a = student.architecture
        masks_BP = random_masks(len(classes_B), a.num_patches, classes_B.device)
        taught, learned = own.taught(batch.images_BCHW), own.learned(student, batch.images_BCHW, masks_BP)
        return spec.self_weight * smkd(taught, learned, partners(classes_B))

    try:
        yield (loss,)
    finally:
        del student.distill_self


class _Head(nn.Module):
    """Logits over prototypes: an MLP to a short vector of length 1, and its cosines with them (DINO, iBOT)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, BOTTLENECK))
        self.prototypes_KX = nn.Parameter(torch.empty(PROTOTYPES, BOTTLENECK))
        for parameter in (self.mlp[0].weight, self.mlp[2].weight, self.prototypes_KX):
            trunc_normal_(parameter, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Cosines in -1..1."""
        return F.linear(F.normalize(self.mlp(x), dim=-1), F.normalize(self.prototypes_KX, dim=-1))


def _views(network: VisionTransformer, head: _Head, images_BCHW: Tensor) -> Views:
    a, seen = network.architecture, Seen()
    with watching(network, seen):
        final_BND = network.forward_features(images_BCHW).float()
    prefix, complete = a.num_prefix_tokens, min(seen.complete, a.self_attention_part.depth)
    patches_BPD = final_BND[:, :0]
    if complete:
        patches_BPD = network.norm(seen.blocks[complete - 1][:, prefix:]).float()
    image_BD = final_BND[:, 0] if a.pool == "token" else final_BND[:, prefix:].mean(dim=1)
    return Views(head(image_BD), head(patches_BPD), patches_BPD)


def _cross_entropy(teacher: Tensor, student: Tensor) -> Tensor:
    target = (teacher / TEACHER_TEMPERATURE).softmax(dim=-1)
    return -(target * (student / STUDENT_TEMPERATURE).log_softmax(dim=-1)).sum(dim=-1)
