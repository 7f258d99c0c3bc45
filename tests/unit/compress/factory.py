"""A candidate and a network with weights that tell units apart."""

from typing import Any

import torch
from torch import Tensor

from vitsearch.candidate import Candidate
from vitsearch.models import VisionTransformer, build_dense

DEPTH, HEADS, UNITS = 3, 4, 48


def candidate(architecture: dict[str, Any] | None = None, **parts: Any) -> Candidate:
    settings = {
        "image_size": 8, "in_chans": 1, "num_classes": 5, "patch_size": 2, "depth": DEPTH, "width": 24,
        "heads": HEADS, "mlp_ratio": 2.0,
    }  # fmt: skip
    return Candidate.model_validate({"architecture": {**settings, **(architecture or {})}, **parts})


def network(c: Candidate) -> VisionTransformer:
    torch.manual_seed(0)
    model = build_dense(c.architecture).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def images(batch: int = 4) -> Tensor:
    return torch.randn(batch, 1, 8, 8, generator=torch.Generator().manual_seed(batch))
