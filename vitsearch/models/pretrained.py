"""Trained timm networks: published weights by name, or a local checkpoint."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor, nn

from vitsearch.errors import InputError, first_line


def load_timm(name: str, checkpoint: Path | None, *, field: str) -> nn.Module:
    """A timm network with its trained weights, in evaluation mode on the CPU.

    Args:
        name: Known to ``timm.create_model``.
        checkpoint: State dict to load strictly; None downloads the published weights.
        field: What the job calls it, for errors.

    Raises:
        InputError: There is no such network, no such file, no network to download over, or the file holds
            other parameters.
    """
    import timm

    require_known(name, field=field)
    if checkpoint is None:
        return _published(name, field)
    state = _read(checkpoint, field)
    model = timm.create_model(
        name, pretrained=False, num_classes=_classes_in(state, name, checkpoint, field)
    ).eval()
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(
            f"must hold the parameters of {name}: {str(error).splitlines()[1].strip()}", where=str(checkpoint),
            field=f"{field}.checkpoint", remedy="name the network that was trained in timm",
        ) from error  # fmt: skip
    return model


def require_known(name: str, *, field: str) -> None:
    """Refuse a name that timm does not know.

    Raises:
        InputError: With the nearest names.
    """
    import timm

    if not timm.is_model(name):
        near = timm.list_models(f"*{name.partition('_')[0]}*")[:3]
        raise InputError(
            "must be a network that timm knows", field=f"{field}.timm", value=name,
            remedy=f"did you mean {', '.join(near)}?" if near else "timm.list_models() lists them",
        )  # fmt: skip


def _published(name: str, field: str) -> nn.Module:
    import timm

    try:
        return timm.create_model(name, pretrained=True).eval()
    except (OSError, RuntimeError) as error:  # no weights were published, or the hub cannot be reached
        raise InputError(
            f"published weights cannot be had ({first_line(error)[:120]})",
            field=f"{field}.timm", value=name,
            remedy="download them elsewhere and name the file in checkpoint",
        ) from error  # fmt: skip


def _read(checkpoint: Path, field: str) -> dict[str, Tensor]:
    from timm.models import load_state_dict

    try:
        found: dict[str, Tensor] = load_state_dict(str(checkpoint), weights_only=True)
    except FileNotFoundError as error:
        raise InputError("the file does not exist", field=f"{field}.checkpoint", value=str(checkpoint)) from error
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, ValueError, OSError, EOFError, KeyError,
            TypeError) as error:  # fmt: skip
        raise InputError(
            f"must be a state dict, .safetensors or .pth ({first_line(error)[:120]})",
            where=str(checkpoint), field=f"{field}.checkpoint",
        ) from error  # fmt: skip
    return found


def _classes_in(state: dict[str, Tensor], name: str, checkpoint: Path, field: str) -> int:
    """How many classes the classifier of a checkpoint tells apart."""
    import timm

    classifier: Any = timm.get_pretrained_cfg(name).classifier or "head"
    weight = f"{classifier if isinstance(classifier, str) else classifier[0]}.weight"
    if weight not in state:
        raise InputError(
            f"must hold the parameters of {name}, but {weight} is missing", where=str(checkpoint),
            field=f"{field}.checkpoint", remedy="name the network that was trained in timm",
        )  # fmt: skip
    return int(state[weight].shape[0])
