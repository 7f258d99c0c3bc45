"""Who teaches, and how its answers enter the loss."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from vitsearch.config.base import Spec
from vitsearch.config.tables import DistillerName


class TeacherSpec(Spec):
    """A trained network: a timm name, a timm name with a local checkpoint, or a bundle.

    Attributes:
        timm: Name known to ``timm.create_model``; without a checkpoint its published weights are downloaded.
        checkpoint: State dict of that network, ``.safetensors`` or ``.pth``.
        bundle: Folder that ``vitsearch export`` wrote.
    """

    timm: str | None = None
    checkpoint: Path | None = None
    bundle: Path | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.timm is None) == (self.bundle is None):
            raise ValueError("a teacher needs either timm or bundle, not both; give one of them")
        if self.checkpoint is not None and self.timm is None:
            raise ValueError("checkpoint holds weights alone; name their network in timm")
        return self

    def resolve_paths(self, folder: Path) -> TeacherSpec:
        """The same teacher with relative paths made absolute against ``folder``."""
        return self.model_copy(
            update={
                name: (folder / path.expanduser()).resolve()
                for name, path in (("checkpoint", self.checkpoint), ("bundle", self.bundle))
                if path is not None
            }
        )


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
    teacher: TeacherSpec | None = None
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
