"""Who teaches, and how its answers enter the loss."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from vitsearch.config.base import Spec
from vitsearch.config.network import NetworkSpec
from vitsearch.config.tables import INNER_DISTILLERS, DistillerName, DistillTermName, InnerDistillerName


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
        until: Share of the epochs in which what it computes counts (DearKD: early ones only).
        terms: Weights of the summands under ``combined``: ``labels``, ``soft`` and ``hard`` answers, and what
            ``inner`` can name.
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
    terms: dict[DistillTermName, Annotated[float, Field(gt=0)]] = {}

    @model_validator(mode="after")
    def _has_a_teacher(self) -> Self:
        if (self.method != "none" or self.inner != "none") and self.teacher is None:
            named = f"method {self.method}" if self.method != "none" else f"inner {self.inner}"
            raise ValueError(f"{named} needs a teacher; add teacher: {{timm: NAME}} or {{bundle: FOLDER}}")
        return self

    @model_validator(mode="after")
    def _terms_are_combined(self) -> Self:
        if self.method != "combined":
            if self.terms:
                raise ValueError(
                    f"terms are summands of combined, but method is {self.method}; write method: combined"
                )
            return self
        if not set(self.terms) - {"labels"}:
            raise ValueError(
                f"method combined needs terms that listen to the teacher, but got terms={list(self.terms)}; "
                "write terms: {labels: 0.5, soft: 0.5, tokens: 0.1}, say"
            )
        if self.inner != "none":
            raise ValueError(
                f"method combined has every summand in terms, but inner is {self.inner}; "
                f"write terms: {{{self.inner}: {self.inner_weight:g}}} and leave inner out"
            )
        return self

    @property
    def is_active(self) -> bool:
        """Whether the teacher's answers enter the loss."""
        return bool({"soft", "hard"} & set(self.terms)) if self.method == "combined" else self.method != "none"

    @property
    def inner_weights(self) -> dict[str, float]:
        """Weights of the summands that listen to what the teacher computes on the way."""
        if self.inner != "none":
            return {self.inner: self.inner_weight}
        return {name: weight for name, weight in self.terms.items() if name in INNER_DISTILLERS}

    @property
    def labels_weight(self) -> float:
        """Weight of the labels where no answer of the teacher shares the loss with them."""
        return self.terms.get("labels", 0.0) if self.method == "combined" else 1.0
