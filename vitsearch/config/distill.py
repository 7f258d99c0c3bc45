"""Who teaches, and how its answers enter the loss."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from vitsearch.config.base import Spec
from vitsearch.config.network import NetworkSpec
from vitsearch.config.tables import DistillerName


class DistillSpec(Spec):
    """Knowledge distillation; ``none`` trains on labels alone.

    Attributes:
        method: How the teacher's answers enter the loss.
        teacher: Who answers.
        alpha: Weight of the teacher's part, 0 to 1; the labels' part has the rest.
        temperature: Softening of both distributions under ``soft``.
        cache: Ask the teacher once per study and share its answers with all trials, which then see the same
            augmented batches; otherwise every trial asks anew.
        top_k: Largest probabilities kept of a cached answer; the rest is spread evenly over the other classes.
    """

    method: DistillerName = "none"
    teacher: NetworkSpec | None = None
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    temperature: Annotated[float, Field(gt=0)] = 1.0
    cache: bool = True
    top_k: Annotated[int, Field(ge=1)] = 10

    @model_validator(mode="after")
    def _has_a_teacher(self) -> Self:
        if self.is_active and self.teacher is None:
            raise ValueError(
                f"method {self.method} needs a teacher; add teacher: {{timm: NAME}} or {{bundle: FOLDER}}"
            )
        return self

    @property
    def is_active(self) -> bool:
        """Whether there is anything to distil."""
        return self.method != "none"
