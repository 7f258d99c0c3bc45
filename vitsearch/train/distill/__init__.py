"""Distillation: a teacher's answers, and the losses that listen to them."""

from vitsearch.config import DISTILLERS, DistillSpec
from vitsearch.config.named import Imported
from vitsearch.train.distill.answers import (
    CachedAnswers,
    LiveAnswers,
    RememberedAnswers,
    TeacherAnswers,
    remember,
)
from vitsearch.train.distill.inner import inner_losses
from vitsearch.train.distill.losses import Distiller
from vitsearch.train.distill.masked import masked_losses
from vitsearch.train.distill.seen import check_inner
from vitsearch.train.losses import LossTerm

_DISTILLERS: Imported[Distiller] = Imported(DISTILLERS)


def distillation_loss(spec: DistillSpec, label_smoothing: float, *answers: TeacherAnswers) -> LossTerm:
    """The training loss of one recipe, labels included; ``answers`` are those of ``spec.teachers``, in order."""
    return _DISTILLERS[spec.method](spec, label_smoothing, answers)


__all__ = [
    "CachedAnswers",
    "LiveAnswers",
    "RememberedAnswers",
    "TeacherAnswers",
    "check_inner",
    "distillation_loss",
    "inner_losses",
    "masked_losses",
    "remember",
]
