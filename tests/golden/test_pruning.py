"""Scores of every kind of unit, and networks without them, against float64 numpy with loops.

The masked network is the dense one in which a unit that goes gives zero; dropped blocks are the identity, and
LayerNorms average over the kept channels alone.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import erf

from tests.golden import reference
from tests.golden.reference import Array
from vitsearch.candidate import Architecture, Candidate
from vitsearch.compress import PruneContext, prune
from vitsearch.compress.weights import Units
from vitsearch.compress.weights.magnitude import rank_magnitude
from vitsearch.compress.weights.taylor import rank_taylor
from vitsearch.models import VisionTransformer, build_dense

DEPTH, WIDTH, HEADS, UNITS, SIZE = 3, 12, 3, 10, 4
SHAPE = {
    "image_size": 6, "patch_size": 2, "in_chans": 1, "num_classes": 4, "depth": DEPTH, "width": WIDTH,
    "heads": HEADS, "mlp_ratio": UNITS / WIDTH,
}  # fmt: skip
PREFIXES = {
    "cls": Architecture.model_validate(SHAPE),
    "cls+dist": Architecture.model_validate({**SHAPE, "distilled": True}),
    "no cls": Architecture.model_validate({**SHAPE, "class_token": False, "pool": "avg"}),
}
A = PREFIXES["cls"]
Weights = dict[str, Array]
Place = tuple[str, tuple[object, ...]]
ALL = slice(None)


def network(a: Architecture = A) -> tuple[VisionTransformer, Weights]:
    torch.manual_seed(0)
    model = build_dense(a).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model, {name: value.numpy().copy() for name, value in model.state_dict().items()}


def images(count: int) -> torch.Tensor:
    return torch.randn(count, 1, 6, 6, generator=torch.Generator().manual_seed(count), dtype=torch.float64)


def places(kind: str, block: int, index: tuple[int, ...]) -> list[Place]:
    """Where the weights of one unit stand."""
    p = f"blocks.{block}."
    if kind == "mlp_units_M":
        (j,) = index
        return [(p + "mlp.fc1.weight", (j,)), (p + "mlp.fc1.bias", (j,)), (p + "mlp.fc2.weight", (ALL, j))]
    if kind == "qk_HQ":
        row = index[0] * SIZE + index[1]
        return [(p + "attn.qkv.weight", (row,)), (p + "attn.qkv.weight", (WIDTH + row,))]
    if kind == "v_HV":
        row = index[0] * SIZE + index[1]
        return [(p + "attn.qkv.weight", (2 * WIDTH + row,)), (p + "attn.proj.weight", (ALL, row))]
    if kind == "heads_H":
        dims = [(index[0], i) for i in range(SIZE)]
        return [one for d in dims for one in places("qk_HQ", block, d) + places("v_HV", block, d)]
    if kind == "block":
        heads = [one for h in range(HEADS) for one in places("heads_H", block, (h,))]
        return heads + [one for j in range(UNITS) for one in places("mlp_units_M", block, (j,))]
    (c,) = index
    found: list[Place] = [("patch_embed.proj.weight", (c,))]
    for b in range(DEPTH):
        p = f"blocks.{b}."
        found += [(p + f"{layer}.weight", (c,)) for layer in ("attn.proj", "mlp.fc2")]
        found += [(p + f"{layer}.weight", (ALL, c)) for layer in ("attn.qkv", "mlp.fc1")]
    return found


def magnitude(w: Weights, unit: list[Place]) -> float:
    return math.sqrt(sum(float(x) ** 2 for name, place in unit for x in np.ravel(w[name][place])))


def scaled(w: Weights, unit: list[Place], factor: float) -> Weights:
    changed = {name: value.copy() for name, value in w.items()}
    for name, place in unit:
        changed[name][place] = factor * changed[name][place]
    return changed


def loss(w: Weights, batch: torch.Tensor, labels: list[int]) -> float:
    total, pool = 0.0, "token" if "cls_token" in w else "avg"
    for image, label in zip(batch.numpy(), labels, strict=True):
        logits, _ = reference.forward(w, image, patch=2, heads=HEADS, reductions={}, pool=pool)
        total -= math.log(reference.softmax(logits)[label])
    return total / len(labels)


def taylor(w: Weights, unit: list[Place], batches: list[tuple[torch.Tensor, list[int]]]) -> float:
    """sum over the unit of w dL/dw is dL/dt where t multiplies all of it: a central difference, squared."""
    h = 1e-5
    slopes = [
        (loss(scaled(w, unit, 1 + h), *batch) - loss(scaled(w, unit, 1 - h), *batch)) / (2 * h)
        for batch in batches
    ]
    return sum(slope**2 for slope in slopes)


def units() -> list[tuple[str, int, tuple[int, ...]]]:
    found: list[tuple[str, int, tuple[int, ...]]] = [("channels_D", 0, (c,)) for c in (0, 5, 11)]
    for block in (0, 2):
        found += [("mlp_units_M", block, (j,)) for j in (0, 3, 9)]
        found += [("heads_H", block, (h,)) for h in range(HEADS)]
        found += [(kind, block, (h, d)) for kind in ("qk_HQ", "v_HV") for h, d in ((0, 0), (1, 3), (2, 1))]
        found.append(("block", block, ()))
    return found


def score_of(scores: Units, kind: str, block: int, index: tuple[int, ...]) -> float:
    figures = scores.channels_D if kind == "channels_D" else getattr(scores.blocks[block], kind)
    return float(figures[index])


@pytest.mark.parametrize("prefix", PREFIXES)
def test_magnitude_scores(prefix: str):
    model, w = network(PREFIXES[prefix])
    scores = rank_magnitude(model, PruneContext()).scores
    for unit in units():
        assert score_of(scores, *unit) == pytest.approx(magnitude(w, places(*unit)), rel=1e-9), unit


@pytest.mark.parametrize("prefix", PREFIXES)
def test_taylor_scores(prefix: str):
    model, w = network(PREFIXES[prefix])
    batches = [(images(3), [0, 3, 1]), (images(2), [2, 2])]
    scores = rank_taylor(model, PruneContext(batches=[(x, torch.tensor(y)) for x, y in batches])).scores
    for unit in units():
        expected = taylor(w, places(*unit), batches)
        assert score_of(scores, *unit) == pytest.approx(expected, rel=1e-4, abs=1e-11), unit


def weakest(w: Weights, kind: str, block: int, indices: list[tuple[int, ...]], kept: int) -> list[tuple[int, ...]]:
    return sorted(indices, key=lambda index: magnitude(w, places(kind, block, index)))[: len(indices) - kept]


def masked(w: Weights, image: Array, kept: dict[str, object]) -> Array:
    """Logits of one image without the weakest units."""
    gone_channels = weakest(w, "channels_D", 0, [(c,) for c in range(WIDTH)], int(kept.get("width", WIDTH)))  # type: ignore[call-overload]
    channels = [c for c in range(WIDTH) if (c,) not in gone_channels]

    def norm(x: Array, name: str) -> Array:
        y = np.zeros_like(x)
        y[:, channels] = reference.layer_norm(
            x[:, channels], w[name + ".weight"][channels], w[name + ".bias"][channels]
        )
        return y

    order = sorted(range(DEPTH), key=lambda b: magnitude(w, places("block", b, ())), reverse=True)
    blocks = sorted(order[: int(kept.get("blocks", DEPTH))])  # type: ignore[call-overload]
    x = reference.embed(w, image, 2)
    for number, b in enumerate(blocks):

        def count(name: str, everything: int, number: int = number) -> int:
            value = kept.get(name, everything)
            return int(value[number] if isinstance(value, tuple) else value)  # type: ignore[call-overload]

        p = f"blocks.{b}."
        qkv = norm(x, p + "norm1") @ w[p + "attn.qkv.weight"].T + w[p + "attn.qkv.bias"]
        q, k, v = (reference.split_heads(part, HEADS) for part in np.split(qkv, 3, axis=1))
        gone = weakest(w, "heads_H", b, [(h,) for h in range(HEADS)], count("heads", HEADS))
        mixed = np.zeros((HEADS, len(x), SIZE))
        for h in range(HEADS):
            if (h,) in gone:
                continue
            dims = [(h, d) for d in range(SIZE)]
            for _, d in weakest(w, "qk_HQ", b, dims, count("qk_dim", SIZE)):
                q[h, :, d] = k[h, :, d] = 0
            for _, d in weakest(w, "v_HV", b, dims, count("v_dim", SIZE)):
                v[h, :, d] = 0
            mixed[h] = reference.softmax(q[h] @ k[h].T / math.sqrt(SIZE)) @ v[h]
        joined = np.concatenate(list(mixed), axis=1)
        x = x + joined @ w[p + "attn.proj.weight"].T + w[p + "attn.proj.bias"]
        hidden = norm(x, p + "norm2") @ w[p + "mlp.fc1.weight"].T + w[p + "mlp.fc1.bias"]
        hidden = hidden * (1 + erf(hidden / math.sqrt(2))) / 2
        for (j,) in weakest(w, "mlp_units_M", b, [(j,) for j in range(UNITS)], count("mlp_units", UNITS)):
            hidden[:, j] = 0
        x = x + hidden @ w[p + "mlp.fc2.weight"].T + w[p + "mlp.fc2.bias"]
    y = norm(x, "norm")
    if "cls_token" not in w:
        return w["head.weight"] @ y.mean(axis=0) + w["head.bias"]
    heads = ["head", "head_dist"] if "dist_token" in w else ["head"]
    return np.mean([w[f"{head}.weight"] @ y[i] + w[f"{head}.bias"] for i, head in enumerate(heads)], axis=0)


@pytest.mark.parametrize(
    "kept",
    [
        {"mlp_units": (1, 10, 4)},
        {"heads": (1, 3, 2)},
        {"qk_dim": (1, 4, 2)},
        {"v_dim": (4, 1, 3)},
        {"width": 7},
        {"blocks": 1},
        {"blocks": 2, "width": 9, "heads": (2, 1), "qk_dim": (3, 2), "v_dim": (1, 4), "mlp_units": 6},
    ],
    ids=str,
)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_sliced_network_is_the_masked_one(prefix: str, kept: dict[str, object]):
    a = PREFIXES[prefix]
    model, w = network(a)
    candidate = Candidate.model_validate({"architecture": a, "sparsity": {"method": "magnitude", **kept}})
    pruned = prune(model, candidate)
    batch = images(3)
    expected = np.stack([masked(w, image, kept) for image in batch.numpy()])
    with torch.no_grad():
        np.testing.assert_allclose(pruned(batch).numpy(), expected, rtol=1e-8, atol=1e-8)
        assert np.abs(expected - model(batch).numpy()).max() > 1e-2
