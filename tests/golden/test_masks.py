"""Masks of weights against loops over rows and layers, and their cost against the built network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from tests.unit.compress.factory import candidate, images, network
from vitsearch.candidate import Candidate
from vitsearch.candidate.mask import non_zeros
from vitsearch.candidate.precision import QUANTIZERS
from vitsearch.compress import PruneContext, assemble, calibrate, insert_quantizers, prune
from vitsearch.compress.weights.mask import largest, two_of_four
from vitsearch.compress.weights.units import projections
from vitsearch.cost import cost_of
from vitsearch.models import VisionTransformer
from vitsearch.profile.macs import count_macs

Array = np.ndarray[Any, np.dtype[Any]]
# sizes that leave groups of one, two and three inputs
SHAPES: dict[str, dict[str, Any]] = {
    "alone": {},
    "width": {
        "method": "magnitude",
        "width": 23,
        "mlp_units": (45, 13, 3),
        "v_dim": (1, 3, 5),
        "heads": (3, 3, 1),
    },
    "blocks": {"method": "magnitude", "blocks": 2, "qk_dim": 5, "mlp_units": 22},
}
MASKS: dict[str, dict[str, Any]] = {
    "2:4": {"mask": "2:4"},
    "unstructured": {"mask": "unstructured", "zeros": 0.37},
}
WEIGHTS = st_numpy.arrays(
    np.float64,
    st_numpy.array_shapes(min_dims=2, max_dims=2, max_side=11),
    elements=st.floats(-10, 10, allow_subnormal=False),
)


def two_of_four_by_loops(w: Array) -> Array:
    kept = np.zeros(w.shape, dtype=bool)
    for row in range(w.shape[0]):
        for start in range(0, w.shape[1], 4):
            group = range(start, min(start + 4, w.shape[1]))
            for i in sorted(group, key=lambda i, row=row: (-abs(w[row, i]), i))[:2]:
                kept[row, i] = True
    return kept


def largest_by_loops(w: Array, zeros: float) -> Array:
    places = sorted(np.ndindex(*w.shape), key=lambda place: abs(w[place]))
    kept = np.ones(w.shape, dtype=bool)
    for place in places[: int(np.floor(zeros * w.size + 1e-9))]:
        kept[place] = False
    return kept


def by_loops(w: Array, mask: dict[str, Any]) -> Array:
    return two_of_four_by_loops(w) if mask["mask"] == "2:4" else largest_by_loops(w, mask["zeros"])


def layers_of(model: VisionTransformer) -> list[torch.nn.Linear]:
    return [getattr(parent, name) for parent, name in projections(model)]


@given(WEIGHTS)
@settings(max_examples=50)
def test_two_of_four(w: Array):
    kept = two_of_four(torch.from_numpy(w)).numpy()
    np.testing.assert_array_equal(kept, two_of_four_by_loops(w))
    assert kept.sum() == non_zeros("2:4", 0.5, *w.shape)


@given(WEIGHTS, st.floats(0, 0.999))
@settings(max_examples=50)
def test_unstructured(w: Array, zeros: float):
    kept = largest(torch.from_numpy(w), zeros).numpy()
    assert kept.sum() == non_zeros("unstructured", zeros, *w.shape) == w.size - int(zeros * w.size + 1e-9)
    if 0 < kept.sum() < kept.size:
        assert np.abs(w[kept]).min() >= np.abs(w[~kept]).max()


@pytest.mark.parametrize("tokens", [{}, {"reducer": "tome", "r": 2}], ids=["all tokens", "tome"])
@pytest.mark.parametrize("architecture", [{}, {"distilled": True}, {"class_token": False, "pool": "avg"}], ids=str)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mask", MASKS)
def test_units_go_first_and_the_cost_counts_what_is_not_zero(
    mask: str, shape: str, architecture: dict[str, Any], tokens: dict[str, Any]
):
    c = candidate(architecture, sparsity={**SHAPES[shape], **MASKS[mask]}, tokens=tokens or {"reducer": "none"})
    without = Candidate.model_validate({**c.model_dump(), "sparsity": SHAPES[shape]})
    dense = network(c)
    found, sliced = prune(dense, c), prune(dense, without)
    for after, before in zip(layers_of(found), layers_of(sliced), strict=True):
        w = before.weight.detach().numpy()
        np.testing.assert_array_equal(after.weight.detach().numpy(), np.where(by_loops(w, MASKS[mask]), w, 0))
    cost, whole = cost_of(c), cost_of(without)
    assert cost.kind == "exact"
    assert count_macs(found.eval(), images(3), nonzero=True) == cost.num_macs < whole.num_macs
    assert count_macs(found, images(3)) == whole.num_macs  # what a stock runtime computes
    assert sum(p.numel() for p in found.parameters()) == cost.num_params
    assert (cost.num_params, cost.size_mb) == (whole.num_params, whole.size_mb)
    assembled = assemble(c)
    assembled.load_state_dict(found.state_dict())
    with torch.no_grad():
        assert torch.equal(assembled(images()), found(images()))


def test_zeros_are_held_while_the_network_trains_on():
    """And other weights train; a schedule raises the share of zeros step by step."""
    seen: list[float] = []

    def train(model: VisionTransformer, epochs: int, terms: Any = ()) -> None:
        assert epochs == 1
        optimizer = torch.optim.AdamW(model.train().parameters(), lr=0.1, weight_decay=0.1)
        before = model.blocks[1].mlp.fc1.layer.weight.detach().clone()
        for _ in range(3):
            model(images()).square().mean().backward()
            optimizer.step()
        layer = model.blocks[1].mlp.fc1
        kept = layer.weight_mask
        seen.append(1 - float(kept.float().mean()))
        effective = layer.layer.weight.where(kept, 0)
        assert (effective[kept] != before[kept]).all()
        with torch.no_grad():
            x = torch.randn(2, layer.layer.in_features)
            torch.testing.assert_close(layer(x), x @ effective.T + layer.layer.bias)

    c = candidate(sparsity={"mask": "unstructured", "zeros": 0.8, "steps": 3, "schedule": "cubic"})
    dense = network(c)
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    found = prune(dense, c, PruneContext(train=train, epochs=3))
    assert seen == pytest.approx([0.8 * (1 - (1 - i / 3) ** 3) for i in (1, 2, 3)], abs=1e-3)
    assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())
    assert [*found.state_dict()] == [*before]
    for layer in layers_of(found):
        assert (layer.weight == 0).sum() == int(0.8 * layer.weight.numel() + 1e-9)


def test_two_of_four_comes_with_the_last_step():
    seen: list[bool] = []

    def train(model: VisionTransformer, epochs: int, terms: Any = ()) -> None:
        seen.append(hasattr(model.blocks[0].mlp.fc1, "weight_mask"))

    c = candidate(sparsity={"method": "magnitude", "mlp_units": 20, "mask": "2:4", "steps": 2})
    prune(network(c), c, PruneContext(train=train, epochs=2))
    assert seen == [False, True]


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("bits", [1, 3, 8, 16])
@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_zeros_outlast_every_quantiser(quantizer: str, bits: int, noisy: bool):
    precision = {"weight_bits": bits, "activation_bits": 8, "quantizer": quantizer, "noisy": noisy}
    try:
        c = candidate(sparsity={"method": "magnitude", "mlp_units": 21, "mask": "2:4"}, precision=precision)
    except ValueError:
        pytest.skip("no candidate")
    pruned = prune(network(c), c)
    zero = [layer.weight == 0 for layer in layers_of(pruned)]
    insert_quantizers(pruned, c.precision).eval()
    calibrate(pruned, [images(4)])
    quantised = [layer.layer.weight for layer in layers_of(pruned)]  # type: ignore[attr-defined]
    assert all((weight[there] == 0).all() for weight, there in zip(quantised, zero, strict=True))
    assert any((weight[~there] != 0).any() for weight, there in zip(quantised, zero, strict=True))
