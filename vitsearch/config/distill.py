"""Who teaches, and how its answers enter the loss."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from vitsearch.config.base import Spec
from vitsearch.config.network import NetworkSpec
from vitsearch.config.tables import DistillerName, InnerDistillerName


class DistillSpec(Spec):
    """Knowledge distillation; ``none`` trains on labels alone.

    Attributes:
        method: How the teacher's answers enter the loss.
        teacher: Who answers.
        alpha: Weight of the teacher's part, 0 to 1; the labels' part has the rest.
        temperature: Softening of both distributions under ``soft``.
        cache: Ask the teacher once per study and share its answers with all trials, which then see the same
            augmented batches; otherwise every trial asks anew.
        inner: What the student learns from the teacher's own computation, besides or alone: its patch ``tokens``,
            the ``manifold`` of their relations, or relations of queries, keys and values (``minivit``).
        inner_weight: Weight of that summand.
        until: Share of the epochs in which it counts (DearKD: early ones only).
        top_k: Largest probabilities kept of a cached answer; the rest is spread evenly over the other classes.
    """

    method: DistillerName = "none"
    teacher: NetworkSpec | None = None
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    temperature: Annotated[float, Field(gt=0)] = 1.0
    cache: bool = True
    top_k: Annotated[int, Field(ge=1)] = 10
    inner: InnerDistillerName = "none"
    inner_weight: Annotated[float, Field(gt=0)] = 1.0
    until: Annotated[float, Field(gt=0, le=1)] = 1.0

    @model_validator(mode="after")
    def _has_a_teacher(self) -> Self:
        if (self.is_active or self.inner != "none") and self.teacher is None:
            named = f"method {self.method}" if self.is_active else f"inner {self.inner}"
            raise ValueError(f"{named} needs a teacher; add teacher: {{timm: NAME}} or {{bundle: FOLDER}}")
        return self

    @property
    def is_active(self) -> bool:
        """Whether the teacher's answers enter the loss."""
        return self.method != "none"
