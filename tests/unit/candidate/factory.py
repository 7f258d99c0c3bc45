"""Candidates the tests share."""

from typing import Any

from vitsearch.candidate import Architecture, Candidate

DEIT_S: dict[str, Any] = {
    "image_size": 224, "in_chans": 3, "num_classes": 1000, "patch_size": 16, "depth": 12, "width": 384, "heads": 6,
}  # fmt: skip
MICRO: dict[str, Any] = {
    "image_size": 8, "in_chans": 1, "num_classes": 10, "patch_size": 2, "depth": 4, "width": 32, "heads": 4,
}  # fmt: skip


def deit_s(**changes: Any) -> Architecture:
    return Architecture(**{**DEIT_S, **changes})


def micro(architecture: dict[str, Any] | None = None, **parts: Any) -> Candidate:
    return Candidate.model_validate({"architecture": {**MICRO, **(architecture or {})}, **parts})
