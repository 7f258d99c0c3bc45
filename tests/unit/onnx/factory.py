"""Exported files, made once."""

from typing import Any

import torch

from tests.unit.compress.factory import candidate, images, network
from vitsearch.compress import build_reducers, calibrate, insert_quantizers, prune
from vitsearch.models import VisionTransformer

PARTS: dict[str, dict[str, Any]] = {
    "dense": {},
    "everything": {
        "architecture": {"distilled": True, "distillation_tokens": 2},
        "tokens": {"reducer": "tome", "r": 2},
        "sparsity": {"method": "magnitude", "mlp_units": 20, "heads": 2},
        "precision": {"weight_bits": 8, "activation_bits": 8},
    },
    "every kind of unit": {
        "tokens": {"reducer": "evit", "keep": 0.6, "blocks": [1]},
        "sparsity": {
            "method": "magnitude",
            "blocks": 2,
            "width": 20,
            "heads": (1, 3),
            "qk_dim": (5, 2),
            "v_dim": (1, 6),
            "mlp_units": (48, 5),
        },
    },
    "evit": {"tokens": {"reducer": "evit", "keep": 0.5}},
    "ppt": {"tokens": {"reducer": "ppt", "r": 4, "tau": 1e-4}},
    "16 bits, no cls": {
        "architecture": {"class_token": False, "pool": "avg"},
        "precision": {"weight_bits": 16, "activation_bits": 16},
    },
}


def model(parts: str) -> VisionTransformer:
    c = candidate(**PARTS[parts])
    found = network(c)
    if c.sparsity.method != "none":
        found = prune(found, c)
    found.set_reducers(build_reducers(c))
    insert_quantizers(found, c.precision).eval()
    with torch.no_grad():
        calibrate(found, [images(8)])
    return found
