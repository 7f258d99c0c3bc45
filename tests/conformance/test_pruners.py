"""What every ranking for structured pruning promises."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.unit.compress.factory import candidate, images, network
from vitsearch.compress import PRUNERS, assemble
from vitsearch.cost import cost_of

SHAPES: list[dict[str, Any]] = [
    {"mlp_units": 20, "heads": 2},
    {"mlp_units": (10, 48, 1)},
    {"heads": (1, 4, 3)},
]
CASES = [(name, {"method": name, **shape}) for name in PRUNERS for shape in SHAPES]


@pytest.mark.parametrize(("name", "sparsity"), CASES)
@torch.no_grad()
def test_the_pruned_network_is_the_candidates(name: str, sparsity: dict[str, Any]) -> None:
    c = candidate(sparsity=sparsity)
    pruned = PRUNERS[name](network(c), c)
    expected = {key: value.shape for key, value in assemble(c).state_dict().items()}
    assert {key: value.shape for key, value in pruned.state_dict().items()} == expected
    assert sum(p.numel() for p in pruned.parameters()) == cost_of(c).num_params
    assert pruned.eval()(images()).isfinite().all()


@pytest.mark.parametrize(("name", "sparsity"), CASES)
@torch.no_grad()
def test_the_dense_network_stays_and_the_choice_repeats(name: str, sparsity: dict[str, Any]) -> None:
    c = candidate(sparsity=sparsity)
    dense = network(c)
    before = {key: value.clone() for key, value in dense.state_dict().items()}
    first, second = (PRUNERS[name](dense, c).state_dict() for _ in range(2))
    assert all(torch.equal(value, before[key]) for key, value in dense.state_dict().items())
    assert all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.parametrize("name", PRUNERS)
def test_it_can_be_trained_on(name: str) -> None:
    c = candidate(sparsity={"method": name, **SHAPES[0]})
    pruned = PRUNERS[name](network(c), c).train()
    pruned(images()).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in pruned.parameters())
