"""How a candidate is trained where that differs from its job's recipe."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from vitsearch.config.base import Spec
from vitsearch.config.distill import DistillSpec
from vitsearch.config.tables import InnerDistillerName
from vitsearch.config.train import TrainSpec


class _Choice(Spec):
    """Settings of which some are given; the others are left out of JSON."""

    @model_serializer(mode="wrap")
    def _given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value not in (None, {})}


class DistillChoice(_Choice):
    """Settings in place of those of ``train.distill``; its teacher, cache and terms are the job's.

    Attributes:
        method: How the teacher's answers enter the loss.
        alpha: Weight of the teacher's part.
        temperature: Softening of both distributions.
        inner: What is learned from the teacher's own computation.
        inner_weight: Weight of that summand.
        until: Share of the epochs in which it counts.
    """

    method: Literal["none", "soft", "hard", "deit"] | None = None
    alpha: float | None = None
    temperature: float | None = None
    inner: InnerDistillerName | None = None
    inner_weight: float | None = None
    until: float | None = None

    @model_validator(mode="after")
    def _as_in_a_job(self) -> Self:
        DistillSpec.model_validate(self.model_dump(exclude={"method", "inner"}))
        return self


class Training(_Choice):
    """Settings in place of those of the job's ``train``; none is the job's recipe as it is.

    Epochs, the batch size and number formats are the job's: trials must stay comparable, and cost what they cost.

    Attributes:
        init: ``random``, or ``pretrained`` from the network that the job names.
        tokens: When token reducers come in.
        optimizer: As in ``TrainSpec``, like all that follow.
        lr: Peak learning rate.
        weight_decay: Decoupled weight decay.
        label_smoothing: Mass spread over the other classes.
        mixup: Alpha of mixup.
        cutmix: Alpha of cutmix.
        randaugment_ops: RandAugment operations.
        randaugment_magnitude: Their strength.
        flip: Probability of a horizontal flip.
        erasing: Probability of random erasing.
        three_augment: Whether three-augment is used.
        repeats: Views of each image in one epoch.
        drop_path: Stochastic depth rate.
        dropout: Dropout rate.
        distill: What it learns from a teacher.
    """

    init: Literal["random", "pretrained"] | None = None
    tokens: Literal["after", "finetune", "start"] | None = None
    optimizer: str | None = None
    lr: float | None = None
    weight_decay: float | None = None
    label_smoothing: float | None = None
    mixup: float | None = None
    cutmix: float | None = None
    randaugment_ops: int | None = None
    randaugment_magnitude: int | None = None
    flip: float | None = None
    erasing: float | None = None
    three_augment: bool | None = None
    repeats: int | None = None
    drop_path: float | None = None
    dropout: float | None = None
    distill: DistillChoice = DistillChoice()

    @model_validator(mode="after")
    def _as_in_a_job(self) -> Self:
        TrainSpec.model_validate(self.model_dump(exclude={"init", "distill"}))
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """What is given, by its name under ``train``: ``lr``, ``distill.method``."""
        own: dict[str, Any] = self.model_dump()
        distill = own.pop("distill", {})
        return own | {f"distill.{name}": value for name, value in distill.items()}

    def resolved(self) -> Training:
        """Without settings of what it switches off itself."""
        own, distill = self.model_dump(), self.distill.model_dump()
        if distill.get("method") == "none":
            distill = {name: value for name, value in distill.items() if name not in {"alpha", "temperature"}}
        if distill.get("inner") == "none":
            distill = {name: value for name, value in distill.items() if name not in {"inner_weight", "until"}}
        if own.get("randaugment_ops") == 0:
            own.pop("randaugment_magnitude", None)
        return Training.model_validate({**own, "distill": distill})

    def applied_to(self, train: TrainSpec) -> TrainSpec:
        """The job's recipe with these settings.

        Raises:
            ValueError: They do not go with the rest of it (``pydantic.ValidationError``).
        """
        own = self.model_dump()
        distill = own.pop("distill", {})
        if not own and not distill:
            return train
        both = {**train.distill.model_dump(), **distill}
        return TrainSpec.model_validate({**train.model_dump(), **own, "distill": both})

    def summary(self) -> str:
        """``lr=0.001 method=soft``; nothing where nothing is given."""
        return " ".join(
            f"{name.rpartition('.')[2]}={value:g}"
            if isinstance(value, float)
            else f"{name.rpartition('.')[2]}={value}"
            for name, value in self.settings.items()
        )
