"""The epoch checkpoint: training goes on where a lost worker stopped."""

from __future__ import annotations

import copy
import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

DIGEST_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a resumed run stands.

    Attributes:
        epoch: Finished epochs.
        history: Validation accuracy after each.
        ended: Whether the run has ended, early perhaps.
    """

    epoch: int = 0
    history: tuple[float, ...] = ()
    ended: bool = False


class EpochCheckpoint:
    """One file, replaced atomically after each epoch: the SHA-256 of what follows, then torch's own format.

    Args:
        path: The file.
        key: What the run is; a checkpoint of another key is ignored.
        before_save: Called before the file is written, and before it is put in its place; what it raises prevents
            that.
        on_saved: Called after each save; may copy the file to where it belongs.
    """

    def __init__(
        self,
        path: Path,
        key: str,
        *,
        before_save: Callable[[], None] = lambda: None,
        on_saved: Callable[[], None] = lambda: None,
    ) -> None:
        self.path, self._before_save, self._on_saved = path, before_save, on_saved
        self.key = key

    def save(self, progress: Progress, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Write the state after an epoch.

        Raises:
            OSError: The file cannot be written, such as on a full disk.
        """
        self._before_save()
        state = {
            "key": self.key,
            "epoch": progress.epoch,
            "history": list(progress.history),
            "ended": progress.ended,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        buffer = io.BytesIO()  # torch.save on a path reports a full disk as a RuntimeError
        torch.save(state, buffer)
        content = buffer.getbuffer()
        with partial.open("wb") as file:
            file.write(hashlib.sha256(content).digest())
            file.write(content)
        self._before_save()
        partial.replace(self.path)
        self._on_saved()

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
        """Load the state if there is one of the same key; a damaged or foreign file starts afresh."""
        state = self._read()
        if state is None or state["key"] != self.key:
            return Progress()
        fresh = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
        try:
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, KeyError):  # another version's network; part of it may have been loaded
            model.load_state_dict(fresh[0])
            optimizer.load_state_dict(fresh[1])
            return Progress()
        return Progress(
            epoch=int(state["epoch"]),
            history=tuple(float(a) for a in state["history"]),
            ended=bool(state.get("ended", False)),  # older files are of runs that go on
        )

    def _read(self) -> dict[str, Any] | None:
        try:
            content = self.path.read_bytes()
        except OSError:
            return None
        digest, content = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if hashlib.sha256(content).digest() != digest:
            return None
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return state

    def remove(self) -> None:
        """Delete the file once the run is complete."""
        self.path.unlink(missing_ok=True)
