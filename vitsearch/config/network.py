"""Where a trained network comes from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self

from pydantic import model_validator

from vitsearch.config.base import Place, Spec


class NetworkSpec(Spec):
    """A trained network: a timm name, a timm name with a local checkpoint, or a bundle.

    Attributes:
        timm: Name known to ``timm.create_model``; without a checkpoint its published weights are downloaded.
        checkpoint: State dict of that network, ``.safetensors`` or ``.pth``; a path or an address.
        bundle: Folder that ``vitsearch export`` wrote; a path or an address.
    """

    timm: str | None = None
    checkpoint: Place | None = None
    bundle: Place | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.timm is None) == (self.bundle is None):
            raise ValueError("a trained network is named by either timm or bundle, not both; give one of them")
        if self.checkpoint is not None and self.timm is None:
            raise ValueError("checkpoint holds weights alone; name their network in timm")
        return self

    def with_paths(self, change: Callable[[Path], Place]) -> NetworkSpec:
        """The same network with each path changed; addresses stay."""
        places = {"checkpoint": self.checkpoint, "bundle": self.bundle}
        paths = {name: place for name, place in places.items() if isinstance(place, Path)}
        return self.model_copy(update={name: change(path) for name, path in paths.items()})
