"""Magnitude scores and slicing against loops over units, in float64."""

import math

import numpy as np
import torch

from tests.golden import reference
from vitsearch.candidate import Architecture, Candidate
from vitsearch.compress import prune
from vitsearch.compress.weights.magnitude import head_scores, mlp_unit_scores
from vitsearch.models import VisionTransformer, build_dense

DEPTH, WIDTH, HEADS, UNITS = 3, 12, 3, 30
A = Architecture(
    image_size=6, patch_size=2, in_chans=1, num_classes=4, depth=DEPTH, width=WIDTH, heads=HEADS, mlp_ratio=2.5
)


def network() -> tuple[VisionTransformer, dict[str, np.ndarray]]:
    torch.manual_seed(0)
    model = build_dense(A).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model, {name: value.numpy().copy() for name, value in model.state_dict().items()}


def unit_score(w: dict[str, np.ndarray], block: int, unit: int) -> float:
    p = f"blocks.{block}.mlp."
    numbers = [*w[p + "fc1.weight"][unit], w[p + "fc1.bias"][unit], *w[p + "fc2.weight"][:, unit]]
    return math.sqrt(sum(x * x for x in numbers))


def head_score(w: dict[str, np.ndarray], block: int, head: int) -> float:
    p, size = f"blocks.{block}.attn.", WIDTH // HEADS
    numbers: list[float] = []
    for part in range(3):
        start = part * WIDTH + head * size
        numbers += w[p + "qkv.weight"][start : start + size].flatten().tolist()
    numbers += w[p + "proj.weight"][:, head * size : (head + 1) * size].flatten().tolist()
    return math.sqrt(sum(x * x for x in numbers))


def test_scores():
    model, w = network()
    for b, block in enumerate(model.blocks):
        np.testing.assert_allclose(mlp_unit_scores(block), [unit_score(w, b, j) for j in range(UNITS)])
        np.testing.assert_allclose(head_scores(block), [head_score(w, b, h) for h in range(HEADS)])


def test_the_sliced_network_is_the_reference_with_the_weakest_units_zeroed():
    model, w = network()
    kept_units, kept_heads = (30, 11, 1), (1, 3, 2)
    candidate = Candidate.model_validate(
        {"architecture": A, "sparsity": {"method": "magnitude", "mlp_units": kept_units, "heads": kept_heads}}
    )
    pruned = prune(model.float(), candidate).double().eval()
    for b in range(DEPTH):
        units = sorted(range(UNITS), key=lambda j: unit_score(w, b, j))[: UNITS - kept_units[b]]
        heads = sorted(range(HEADS), key=lambda h: head_score(w, b, h))[: HEADS - kept_heads[b]]
        for unit in units:
            w[f"blocks.{b}.mlp.fc2.weight"][:, unit] = 0
        for head in heads:
            w[f"blocks.{b}.attn.proj.weight"][:, head * 4 : head * 4 + 4] = 0
    images = torch.randn(3, 1, 6, 6, generator=torch.Generator().manual_seed(1)).double()
    expected = np.stack(
        [reference.forward(w, image.numpy(), patch=2, heads=HEADS, reductions={})[0] for image in images]
    )
    with torch.no_grad():
        np.testing.assert_allclose(pruned(images).numpy(), expected, rtol=1e-5, atol=1e-5)
