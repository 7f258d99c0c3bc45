"""Who teaches, and how its answers enter the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Self

from pydantic import Field, model_validator

from vitsearch.config.base import Spec
from vitsearch.config.network import NetworkSpec
from vitsearch.config.tables import (
    INNER_DISTILLERS,
    SELF_DISTILLER,
    DistillerName,
    DistillTermName,
    InnerDistillerName,
)


class DistillSpec(Spec):
    """Knowledge distillation; ``none`` trains on labels alone.

    Attributes:
        method: How the teacher's answers enter the loss.
        teacher: Who answers.
        second_teacher: Who answers beside it under ``co_advise``, a network of another kind.
        alpha: Weight of the teacher's part, 0 to 1; the labels' part has the rest.
        temperature: Softening of both distributions under ``soft``.
        cache: Ask the teacher once per study and share its answers with all trials, which then see the same
            augmented batches; otherwise every trial asks anew.
        inner: What the student learns from the teacher's own computation, besides or alone: its patch ``tokens``,
            the ``manifold`` of their relations, or relations of queries, keys and values (``minivit``). Under
            ``smkd`` the teacher is the moving average of the student itself, and none is named.
        inner_weight: Weight of that summand.
        until: Share of the epochs in which what it computes counts (DearKD: early ones only).
        terms: Weights of the summands under ``combined``: ``labels``, ``soft`` and ``hard`` answers, and what
            ``inner`` can name.
        top_k: Largest probabilities kept of a cached answer; the rest is spread evenly over the other classes.
    """

    method: DistillerName = "none"
    teacher: NetworkSpec | None = None
    second_teacher: NetworkSpec | None = None
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
        if (self.is_active or self.inner_weights) and self.teacher is None:
            named = f"method {self.method}" if self.method != "none" else f"inner {self.inner}"
            raise ValueError(f"{named} needs a teacher; add teacher: {{timm: NAME}} or {{bundle: FOLDER}}")
        return self

    @model_validator(mode="after")
    def _has_as_many_as_it_asks(self) -> Self:
        if (self.method == "co_advise") == (self.second_teacher is not None):
            return self
        if self.second_teacher is None:
            raise ValueError(
                "method co_advise has two teachers of different kinds, but got one; add second_teacher: "
                "{timm: NAME} or {bundle: FOLDER}"
            )
        raise ValueError(
            f"second_teacher answers under co_advise alone, but method is {self.method}; "
            "write method: co_advise or leave second_teacher out"
        )

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
                f"method combined needs terms that listen to a teacher, but got terms={list(self.terms)}; "
                "write terms: {labels: 0.5, soft: 0.5, tokens: 0.1}, say"
            )
        if self.inner != "none":
            raise ValueError(
                f"method combined has every summand in terms, but inner is {self.inner}; "
                f"write terms: {{{self.inner}: {self.inner_weight:g}}} and leave inner out"
            )
        return self

    @property
    def teachers(self) -> tuple[NetworkSpec, ...]:
        """Who is asked for answers."""
        asked = (self.teacher, self.second_teacher) if self.is_active else ()
        return tuple(one for one in asked if one is not None)

    def of_teacher(self, teacher: NetworkSpec) -> Self:
        """The same with this teacher alone, as far as asking it goes."""
        method = "soft" if self.method == "co_advise" else self.method  # which would miss the other one
        return self.model_copy(update={"teacher": teacher, "second_teacher": None, "method": method})

    def with_networks(self, change: Callable[[NetworkSpec], NetworkSpec]) -> Self:
        """The same with each teacher changed."""
        update = {name: getattr(self, name) for name in ("teacher", "second_teacher")}
        return self.model_copy(update={name: one and change(one) for name, one in update.items()})

    @property
    def is_active(self) -> bool:
        """Whether the teacher's answers enter the loss."""
        return bool({"soft", "hard"} & set(self.terms)) if self.method == "combined" else self.method != "none"

    @property
    def inner_weights(self) -> dict[str, float]:
        """Weights of the summands that listen to what the teacher computes on the way."""
        return {name: weight for name, weight in self._summands.items() if name in INNER_DISTILLERS}

    @property
    def self_weight(self) -> float:
        """Weight of ``smkd``; 0 without it."""
        return self._summands.get(SELF_DISTILLER, 0.0)

    @property
    def _summands(self) -> dict[str, float]:
        return {self.inner: self.inner_weight} if self.inner != "none" else dict(self.terms)

    @property
    def labels_weight(self) -> float:
        """Weight of the labels where no answer of the teacher shares the loss with them."""
        return self.terms.get("labels", 0.0) if self.method == "combined" else 1.0
