"""BinaryViT's pooling branches and affine residuals against their equations, written out in numpy."""

from __future__ import annotations

from math import erf

import numpy as np
import pytest
import torch

from tests.golden.test_class_attention import array, linear, mixed, normed
from tests.unit.train.factory import architecture
from vitsearch.candidate import Candidate
from vitsearch.compress import build_reducers
from vitsearch.compress.quantize.repq import fold
from vitsearch.models import VisionTransformer, build_dense
from vitsearch.models.pooling_branches import PoolingBlock, PoolingBranches

SETTINGS = {"depth": 3, "width": 12, "heads": 3, "patch_size": 2, "image_size": 10, "pooling_branches": True}


def network(**changes: object) -> VisionTransformer:
    torch.manual_seed(0)
    model = build_dense(architecture(**{**SETTINGS, **changes})).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def affine(x: np.ndarray, layer: torch.nn.Module) -> np.ndarray:
    return array(layer.gamma) * x + array(layer.beta)


def neighbours_mean(grid: np.ndarray, row: int, column: int, height: int, width: int) -> np.ndarray:
    """Of those patches of a window that are there; grid (S, S, D)."""
    there = [
        grid[r, c]
        for r in range(row - height // 2, row + height // 2 + 1)
        for c in range(column - width // 2, column + width // 2 + 1)
        if 0 <= r < len(grid) and 0 <= c < len(grid)
    ]
    return np.mean(there, axis=0)


def branches(n: np.ndarray, block: PoolingBlock, prefix: int) -> np.ndarray:
    side = round((len(n) - prefix) ** 0.5)
    grid = n[prefix:].reshape(side, side, -1)
    out = np.zeros_like(n)
    for layer, (height, width) in zip(block.branches.affines, [(1, 3), (3, 1), (1, 5), (5, 1)], strict=True):
        for i in range(side * side):
            out[prefix + i] += affine(neighbours_mean(grid, i // side, i % side, height, width), layer)
    return out


def reference(block: PoolingBlock, x: np.ndarray, prefix: int, *, hides_self: bool) -> np.ndarray:
    """Tokens of one image after the block."""
    q, k, v = np.split(linear(normed(x, block.norm1), block.attn.qkv), 3, axis=1)
    joined = mixed(q, k, v, block.attn.num_heads, hides_self=hides_self)
    h = x + affine(linear(joined, block.attn.proj), block.ls1)
    n = normed(h, block.norm2)
    hidden = linear(n, block.mlp.fc1)
    hidden = hidden * 0.5 * (1 + np.vectorize(erf)(hidden / 2**0.5))
    return h + affine(linear(hidden, block.mlp.fc2), block.ls2) + branches(n, block, prefix)


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"distilled": True, "distillation_tokens": 2}, {"class_token": False, "pool": "avg"},
        {"attention": "lsa", "patch_size": 5}, {"patch_size": 10},
    ],
    ids=str,
)  # fmt: skip
def test_a_block(changes: dict[str, object]) -> None:
    model = network(**changes)
    a = model.architecture
    x_BND = torch.randn(2, a.num_tokens, a.width, dtype=torch.float64)
    for block in model.blocks:
        with torch.no_grad():
            found, _ = block(x_BND)
        for one, x in zip(found.numpy(), x_BND.numpy(), strict=True):
            expected = reference(block, x, a.num_prefix_tokens, hides_self=a.attention == "lsa")
            np.testing.assert_allclose(one, expected, atol=1e-10)


def test_a_block_begins_without_branches_and_with_residuals_at_a_tenth() -> None:
    block = build_dense(architecture(**SETTINGS)).blocks[0]
    assert isinstance(block, PoolingBlock)
    for layer in (block.ls1, block.ls2):
        assert torch.equal(layer.gamma, torch.full((12,), 0.1))
        assert not layer.beta.any()
    added = block.branches(torch.randn(2, 26, 12))
    assert not added.any()
    added[:, 3].sum().backward()
    assert all(one.gamma.grad.abs().min() > 0 for one in block.branches.affines), "they can grow"


@torch.no_grad()
def test_after_pooling_the_grid_is_the_smaller_one() -> None:
    """Fewer tokens towards the end: BinaryViT's pyramid, at one width."""
    c = Candidate.model_validate(
        {"architecture": architecture(**SETTINGS), "tokens": {"reducer": "grid_pool", "grid": 2, "blocks": [1]}}
    )
    model = network()
    model.set_reducers(build_reducers(c))
    tokens = model.embed(torch.randn(2, 1, 10, 10, dtype=torch.float64))
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    for block in model.blocks:
        block.branches.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    model.run_blocks(torch.randn(2, 1, 10, 10, dtype=torch.float64))
    assert tokens.shape[1] == 26
    for block, (given, found) in zip(model.blocks, seen, strict=True):
        assert given.shape == found.shape == (2, 1 + 9, 12)
        np.testing.assert_allclose(found[1], branches(given[1].numpy(), block, 1), atol=1e-10)


@torch.no_grad()
def test_repq_folds_the_norm_that_branches_read_too() -> None:
    """Eq. 8-10 of RepQ-ViT, for a second reader."""
    torch.manual_seed(0)
    norm, reader = torch.nn.LayerNorm(6).double(), PoolingBranches(6, 1).double()
    for parameter in [*norm.parameters(), *reader.parameters()]:
        parameter.add_(torch.randn_like(parameter))
    x = torch.randn(3, 17, 6, dtype=torch.float64)
    before, outputs = reader(norm(x)), norm(x).flatten(0, 1)
    old = norm.weight.clone()
    fold([norm], [reader], outputs.amin(dim=0), outputs.amax(dim=0), 8)
    assert not torch.allclose(norm.weight, old)
    torch.testing.assert_close(reader(norm(x)), before)
