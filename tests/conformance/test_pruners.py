"""What every ranking for structured pruning promises."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from tests.unit.compress.factory import candidate, images, network
from vitsearch.compress import PRUNERS, PruneContext, assemble, prune
from vitsearch.cost import cost_of
from vitsearch.profile.macs import count_macs

SHAPES: list[dict[str, Any]] = [
    {"mlp_units": 20, "heads": 2},
    {"mlp_units": (10, 48, 1)},
    {"heads": (1, 4, 3)},
    {"qk_dim": (2, 6, 1), "v_dim": 3},
    {"width": 17},
    {"blocks": 2},
    {"blocks": 2, "width": 20, "heads": (1, 3), "qk_dim": (5, 2), "v_dim": (1, 6), "mlp_units": (48, 5)},
]
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "plain": {},
    "deit": {"distilled": True, "layer_scale": True, "pre_norm": True, "patch_bias": False},
    "civt": {"distilled": True, "distillation_tokens": 2},
    "spt": {"patch_embedding": "spt"},
    "lsa": {"attention": "lsa"},
    "no cls": {"class_token": False, "pool": "avg", "in_chans": 1},
}
CASES = [(name, {"method": name, **shape}) for name in PRUNERS for shape in SHAPES]


def context() -> PruneContext:
    labels = torch.arange(4) % 5
    return PruneContext(seed=3, batches=((images(4), labels), (images(3), labels[:3])), epochs=2)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("name", "sparsity"), CASES)
@torch.no_grad()
def test_the_pruned_network_is_the_candidates(name: str, sparsity: dict[str, Any], architecture: str) -> None:
    c = candidate(ARCHITECTURES[architecture], sparsity=sparsity)
    pruned = prune(network(c), c, context())
    expected = {key: value.shape for key, value in assemble(c).state_dict().items()}
    assert {key: value.shape for key, value in pruned.state_dict().items()} == expected
    assert sum(p.numel() for p in pruned.parameters()) == cost_of(c).num_params
    assert count_macs(pruned.eval(), images()) == cost_of(c).num_macs
    assert pruned(images()).isfinite().all()


@pytest.mark.parametrize(("name", "sparsity"), CASES)
@torch.no_grad()
def test_the_dense_network_stays_and_the_choice_repeats(name: str, sparsity: dict[str, Any]) -> None:
    c = candidate(sparsity=sparsity)
    dense = network(c).train()
    before = copy.deepcopy(dense.state_dict())
    first, second = (prune(dense, c, context()).state_dict() for _ in range(2))
    assert all(torch.equal(value, before[key]) for key, value in dense.state_dict().items())
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert dense.training
    assert all(p.grad is None for p in dense.parameters())


@pytest.mark.parametrize("name", PRUNERS)
def test_it_can_be_trained_on(name: str) -> None:
    c = candidate(sparsity={"method": name, **SHAPES[-1]})
    pruned = prune(network(c), c, context()).train()
    pruned(images()).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in pruned.parameters())


@pytest.mark.parametrize("name", PRUNERS)
@torch.no_grad()
def test_pruned_once_is_pruned_in_steps_of_nothing(name: str) -> None:
    """A network that is pruned already is ranked and sliced like a dense one."""
    c = candidate(sparsity={"method": name, **SHAPES[-1]})
    once = prune(network(c), c, context())
    assert torch.equal(prune(once, c, context()).eval()(images()), once.eval()(images()))


@pytest.mark.parametrize("name", PRUNERS)
def test_keeping_everything_is_the_identity(name: str) -> None:
    everything = candidate(sparsity={"method": name, "blocks": 3, "width": 24, "heads": 4, "mlp_units": 48})
    dense = network(everything)
    with torch.no_grad():
        assert torch.equal(prune(dense, everything, context()).eval()(images()), dense(images()))


def test_random_choices_follow_the_seed() -> None:
    c = candidate(sparsity={"method": "random", "mlp_units": 20})
    dense = network(c)
    first, again, other = (prune(dense, c, PruneContext(seed=seed)).state_dict() for seed in (1, 1, 2))
    name = "blocks.0.mlp.fc1.bias"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])


def test_taylor_needs_labels() -> None:
    c = candidate(sparsity={"method": "taylor", "mlp_units": 20})
    with pytest.raises(ValueError, match="needs labelled batches"):
        prune(network(c), c)
