"""Losses of a student that has labels and a teacher.

Shape suffixes: B batch, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from vitsearch.config import DistillSpec
from vitsearch.errors import TrialError
from vitsearch.train.batches import Batch
from vitsearch.train.distill.answers import TeacherAnswers
from vitsearch.train.losses import LossTerm, Outputs, cross_entropy


class Distiller(Protocol):
    """Makes the loss of one kind of distillation."""

    def __call__(self, spec: DistillSpec, label_smoothing: float, answers: Sequence[TeacherAnswers]) -> LossTerm:
        """The whole loss, labels included; answers of each teacher."""
        ...


def soft(spec: DistillSpec, label_smoothing: float, answers: Sequence[TeacherAnswers]) -> LossTerm:
    """Soft distillation (Hinton et al., 2015; Touvron et al., 2021, Eq. 2).

    L = (1 - alpha) CE(z_s, y) + alpha T^2 KL(softmax(z_t / T) || softmax(z_s / T)), each a mean over the batch.
    """
    (ask,) = answers

    def loss(outputs: Outputs, batch: Batch) -> Tensor:
        labels = cross_entropy(outputs.logits_BK, batch.targets, label_smoothing)
        teacher = softened_divergence(ask(batch), outputs.logits_BK, spec.temperature)
        return (1 - spec.alpha) * labels + spec.alpha * teacher

    return loss


def hard(spec: DistillSpec, label_smoothing: float, answers: Sequence[TeacherAnswers]) -> LossTerm:
    """Hard-label distillation (Touvron et al., 2021, Eq. 3).

    L = (1 - alpha) CE(z_s, y) + alpha CE(z_s, argmax z_t), each a mean over the batch; at alpha = 1/2 the paper's.
    """
    (ask,) = answers

    def loss(outputs: Outputs, batch: Batch) -> Tensor:
        labels = cross_entropy(outputs.logits_BK, batch.targets, label_smoothing)
        teacher = cross_entropy(outputs.logits_BK, ask(batch).argmax(dim=-1), 0.0)
        return (1 - spec.alpha) * labels + spec.alpha * teacher

    return loss


def deit(spec: DistillSpec, label_smoothing: float, answers: Sequence[TeacherAnswers]) -> LossTerm:
    """Distillation through a token of its own (Touvron et al., 2021, Section 4).

    L = (1 - alpha) CE(z_cls, y) + alpha CE(z_dist, argmax z_t). The class token learns from labels alone, the
    distillation token from the teacher alone; evaluation averages both heads.
    """
    (ask,) = answers

    def loss(outputs: Outputs, batch: Batch) -> Tensor:
        (dist_BK,) = _tokens_of(outputs, 1, "deit")
        labels = cross_entropy(outputs.cls_BK, batch.targets, label_smoothing)
        teacher = cross_entropy(dist_BK, ask(batch).argmax(dim=-1), 0.0)
        return (1 - spec.alpha) * labels + spec.alpha * teacher

    return loss


def co_advise(spec: DistillSpec, label_smoothing: float, answers: Sequence[TeacherAnswers]) -> LossTerm:
    """Two teachers of different inductive bias, a token for each (CivT: Ren et al., 2022, *Co-advise*).

    L = (1 - alpha) CE(z_cls, y) + alpha/2 sum_i T^2 KL(softmax(z_ti / T) || softmax(z_i / T)), with z_1 and z_2 of
    the two distillation tokens; evaluation averages the three heads. At alpha = 2/3 and T = 1 it is a third of the
    authors' own sum of weights 1.

    Differs from the authors' network, where the two tokens start from the means of two stems, one of convolutions
    and one of involutions: here they are learned, as the class token is.
    """

    def loss(outputs: Outputs, batch: Batch) -> Tensor:
        tokens = _tokens_of(outputs, 2, "co_advise")
        total = (1 - spec.alpha) * cross_entropy(outputs.cls_BK, batch.targets, label_smoothing)
        for ask, z_BK in zip(answers, tokens, strict=True):
            total = total + spec.alpha / 2 * softened_divergence(ask(batch), z_BK, spec.temperature)
        return total

    return loss


def combined(spec: DistillSpec, label_smoothing: float, answers: Sequence[TeacherAnswers]) -> LossTerm:
    """Weighted summands, as the three of GPUSQ-ViT (Yu et al., 2023): here those of labels and answers.

    L = w_labels CE(z_s, y) + w_soft T^2 KL(softmax(z_t / T) || softmax(z_s / T)) + w_hard CE(z_s, argmax z_t)
    plus what ``inner_losses`` makes of the other terms; a term that is not named has weight 0. The weights need
    not sum to 1, and ``alpha`` has no part in it.
    """
    (ask,) = answers
    labels_weight, soft_weight, hard_weight = (spec.terms.get(name, 0.0) for name in ("labels", "soft", "hard"))

    def loss(outputs: Outputs, batch: Batch) -> Tensor:
        z_BK, theirs_BK = outputs.logits_BK, ask(batch)
        total = labels_weight * cross_entropy(z_BK, batch.targets, label_smoothing)
        total = total + soft_weight * softened_divergence(theirs_BK, z_BK, spec.temperature)
        return total + hard_weight * cross_entropy(z_BK, theirs_BK.argmax(dim=-1), 0.0)

    return loss


def _tokens_of(outputs: Outputs, count: int, method: str) -> tuple[Tensor, ...]:
    if len(outputs.dist_BK) != count:
        more = f" and architecture.distillation_tokens: {count}" if count > 1 else ""
        raise TrialError("train", "no_distillation_token", f"{method} needs architecture.distilled: true{more}")
    return outputs.dist_BK


def softened_divergence(teacher_log_BK: Tensor, student_BK: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) at temperature T, a mean over the batch.

    Args:
        teacher_log_BK: Logits or log-probabilities of the teacher; a constant per image cancels.
        student_BK: Logits of the student.
        temperature: T; the factor T^2 keeps the gradient's size whatever T is.
    """
    teacher_log_BK = (teacher_log_BK / temperature).log_softmax(dim=-1)
    student_log_BK = (student_BK / temperature).log_softmax(dim=-1)
    divergence_B = (teacher_log_BK.exp() * (teacher_log_BK - student_log_BK)).sum(dim=-1)
    return temperature**2 * torch.mean(divergence_B)
