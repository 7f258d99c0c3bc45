"""A trained model in its final form on disk: ``model.safetensors`` and ``candidate.json`` in one folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save
from torch import nn

from vitsearch.candidate import Candidate
from vitsearch.compress.assemble import assemble
from vitsearch.models import VisionTransformer

WEIGHTS_FILE = "model.safetensors"
CANDIDATE_FILE = "candidate.json"


def save_model(
    model: nn.Module, candidate: Candidate, folder: Path, *, before_save: Callable[[], None] = lambda: None
) -> str:
    """Write both files; returns the SHA-256 of the weights.

    Args:
        model: The network.
        candidate: What it was built of.
        folder: Where they belong.
        before_save: Called before they are written, and before the weights are put in their place; what it raises
            prevents that.

    Raises:
        OSError: They cannot be written, such as on a full disk.
    """
    before_save()
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    partial = folder / (WEIGHTS_FILE + ".partial")
    content = save(state)  # safetensors' own file writer reports a full disk as its own exception
    partial.write_bytes(content)
    (folder / CANDIDATE_FILE).write_text(candidate.model_dump_json(indent=2) + "\n", encoding="utf-8")
    before_save()
    partial.replace(folder / WEIGHTS_FILE)
    return hashlib.sha256(content).hexdigest()


def load_model(candidate: Candidate, folder: Path) -> VisionTransformer:
    """The compressed network with its trained weights, in evaluation mode on the CPU."""
    return load_weights(candidate, folder / WEIGHTS_FILE)


def load_weights(candidate: Candidate, file: Path) -> VisionTransformer:
    """The same of a file of weights, wherever it lies."""
    state = load_file(file)
    model = assemble(candidate, state)
    model.load_state_dict(state)
    return model
