"""The epoch checkpoint: training goes on where a lost worker stopped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a resumed run stands.

    Attributes:
        epoch: Finished epochs.
        history: Validation accuracy after each.
    """

    epoch: int = 0
    history: tuple[float, ...] = ()


class EpochCheckpoint:
    """One file, replaced atomically after each epoch.

    Args:
        path: The file.
        key: What the run is; a checkpoint of another key is ignored.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.key = key

    def save(self, progress: Progress, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Write the state after an epoch."""
        state = {
            "key": self.key,
            "epoch": progress.epoch,
            "history": list(progress.history),
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.path)

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
        """Load the state if there is one of the same key; a damaged or foreign file starts afresh."""
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
            if state["key"] != self.key:
                return Progress()
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
        except (OSError, RuntimeError, ValueError, KeyError, EOFError, TypeError):
            return Progress()
        return Progress(epoch=int(state["epoch"]), history=tuple(float(a) for a in state["history"]))

    def remove(self) -> None:
        """Delete the file once the run is complete."""
        self.path.unlink(missing_ok=True)
