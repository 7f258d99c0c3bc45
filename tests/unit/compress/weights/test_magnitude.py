import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.unit.compress.factory import HEADS, UNITS, candidate, images, network
from vitsearch.candidate import Candidate
from vitsearch.compress import prune
from vitsearch.compress.weights.magnitude import head_scores, mlp_unit_scores, strongest
from vitsearch.cost import cost_of
from vitsearch.models import VisionTransformer
from vitsearch.profile.macs import count_macs

KEPT: dict[str, dict[str, Any]] = {
    "units": {"mlp_units": 29},
    "heads": {"heads": 3},
    "one of each": {"mlp_units": 1, "heads": 1},
    "per block": {"mlp_units": (48, 7, 30), "heads": (1, 4, 2)},
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "plain": {},
    "distilled, scaled": {"distilled": True, "layer_scale": True, "pre_norm": True},
    "no cls": {"class_token": False, "pool": "avg", "patch_bias": False},
}


def pruned_candidate(kept: str, architecture: str = "plain") -> Candidate:
    return candidate(ARCHITECTURES[architecture], sparsity={"method": "magnitude", **KEPT[kept]})


@torch.no_grad()
def masked(model: VisionTransformer, c: Candidate) -> VisionTransformer:
    """The dense network with the weakest units' outputs multiplied by zero."""
    model = copy.deepcopy(model)
    a = c.architecture
    for block, kept in zip(model.blocks, c.widths, strict=True):
        block.mlp.fc2.weight[:, mlp_unit_scores(block).argsort()[: UNITS - kept.mlp_units]] = 0
        weakest = head_scores(block).argsort()[: HEADS - kept.heads]
        block.attn.proj.weight.view(a.width, HEADS, a.head_dim)[:, weakest] = 0
    return model


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kept", KEPT)
@torch.no_grad()
def test_the_sliced_network_is_the_masked_one(kept: str, architecture: str):
    c = pruned_candidate(kept, architecture)
    dense = network(c)
    expected = masked(dense, c)(images())
    assert (expected - dense(images())).abs().max() > 1e-2
    torch.testing.assert_close(prune(dense, c).eval()(images()), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kept", KEPT)
@torch.no_grad()
def test_parameters_and_macs_are_those_of_the_closed_form(kept: str, architecture: str):
    c = pruned_candidate(kept, architecture)
    pruned, cost = prune(network(c), c).eval(), cost_of(c)
    assert sum(p.numel() for p in pruned.parameters()) == cost.num_params
    assert count_macs(pruned, images()) == cost.num_macs
    assert cost.num_params < sum(p.numel() for p in network(c).parameters())


@torch.no_grad()
def test_keeping_everything_is_the_identity():
    everything = candidate(sparsity={"method": "magnitude", "mlp_units": UNITS, "heads": HEADS})
    dense = network(everything)
    assert torch.equal(prune(dense, everything).eval()(images()), dense(images()))
    assert everything.canonical() == candidate().canonical()


def test_the_original_is_not_changed():
    c = pruned_candidate("per block")
    dense = network(c)
    before = copy.deepcopy(dense.state_dict())
    pruned = prune(dense, c)
    with torch.no_grad():
        for parameter in pruned.parameters():
            parameter.zero_()
    after = dense.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_survivors_keep_their_order():
    c = pruned_candidate("per block")
    dense = network(c)
    pruned = prune(dense, c)
    for old, new in zip(dense.blocks, pruned.blocks, strict=True):
        positions = [_row(old.mlp.fc1.weight, row) for row in new.mlp.fc1.weight]
        assert positions == sorted(positions)
        rows = [_row(old.attn.qkv.weight, row) for row in new.attn.qkv.weight]
        assert rows == sorted(rows)
        columns = [_row(old.attn.proj.weight.T, column) for column in new.attn.proj.weight.T]
        assert columns == sorted(columns)


def _row(matrix: Tensor, row: Tensor) -> int:
    found = (matrix == row).all(dim=1).nonzero().flatten().tolist()
    assert len(found) == 1
    return int(found[0])


def test_equal_scores_keep_the_first():
    assert strongest(torch.tensor([1.0, 2.0, 1.0, 2.0, 1.0]), 3).tolist() == [0, 1, 3]
