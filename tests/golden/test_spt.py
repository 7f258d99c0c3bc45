"""Shifted patch tokenisation against its definition, pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit.train.factory import architecture, network
from vitsearch.candidate import Architecture, Candidate
from vitsearch.compress import assemble
from vitsearch.cost import cost_of
from vitsearch.models import build_dense
from vitsearch.models.spt import ShiftedPatchEmbed
from vitsearch.onnx import OnnxModel, export_onnx
from vitsearch.profile.macs import count_macs


def reference(images: np.ndarray, layer: ShiftedPatchEmbed, patch: int) -> np.ndarray:
    """Every view is read from the image at an offset, outside of which there is zero."""
    B, C, H, W = images.shape
    s = patch // 2
    views = [(0, 0), (s, s), (s, -s), (-s, s), (-s, -s)]  # where a view's pixel (y, x) comes from
    gamma, beta = layer.norm.weight.detach().numpy(), layer.norm.bias.detach().numpy()
    weight, bias = layer.proj.weight.detach().numpy(), layer.proj.bias.detach().numpy()
    tokens = np.zeros((B, (H // patch) * (W // patch), len(weight)))
    for b in range(B):
        for row in range(H // patch):
            for column in range(W // patch):
                features = []
                for dy, dx in views:
                    for c in range(C):
                        for y in range(row * patch, (row + 1) * patch):
                            for x in range(column * patch, (column + 1) * patch):
                                inside = 0 <= y + dy < H and 0 <= x + dx < W
                                features.append(images[b, c, y + dy, x + dx] if inside else 0.0)
                f = np.array(features)
                f = (f - f.mean()) / np.sqrt(f.var() + layer.norm.eps) * gamma + beta
                tokens[b, row * (W // patch) + column] = weight @ f + bias
    return tokens


@pytest.mark.parametrize(("chans", "patch", "side"), [(1, 2, 6), (3, 3, 9), (2, 4, 8)])
def test_spt(chans: int, patch: int, side: int) -> None:
    torch.manual_seed(0)
    layer = ShiftedPatchEmbed(chans, patch, 7, eps=1e-6).double()
    with torch.no_grad():
        layer.norm.weight.uniform_(0.5, 1.5)
        layer.norm.bias.uniform_(-0.5, 0.5)
        images = torch.randn(3, chans, side, side, dtype=torch.float64)
        found = layer(images)
    np.testing.assert_allclose(found.numpy(), reference(images.numpy(), layer, patch), atol=1e-12)


@pytest.mark.parametrize("chans", [1, 3])
def test_its_cost_is_exact(chans: int) -> None:
    a = architecture(patch_embedding="spt", in_chans=chans, pre_norm=True)
    candidate = Candidate(architecture=a)
    model = build_dense(a).eval()
    cost = cost_of(candidate)
    assert cost.num_params == sum(p.numel() for p in model.parameters())
    assert cost.num_macs == count_macs(model, torch.zeros(1, chans, 8, 8))


def test_candidates_without_it_keep_their_hash() -> None:
    plain = architecture()
    assert "patch_embedding" not in plain.model_dump(mode="json")
    shifted = architecture(patch_embedding="spt")
    assert Architecture.model_validate_json(shifted.model_dump_json()) == shifted
    assert Candidate(architecture=plain).hash != Candidate(architecture=shifted).hash


def test_it_goes_with_compression_and_onnx(tmp_path: Path) -> None:
    candidate = Candidate.model_validate(
        {
            "architecture": architecture(patch_embedding="spt", patch_size=2, width=32, heads=4).model_dump(),
            "tokens": {"reducer": "tome", "r": 2},
            "precision": {"weight_bits": 4, "activation_bits": 32},
        }
    )
    model = assemble(candidate).eval()
    images = torch.randn(2, 1, 8, 8)
    path = tmp_path / "model.onnx"
    export_onnx(model, path, in_chans=1, image_size=8)
    with torch.inference_mode():
        torch.testing.assert_close(
            torch.from_numpy(OnnxModel(path)(images.numpy())), model(images), atol=1e-5, rtol=1e-4
        )


def test_the_first_token_sees_beyond_its_patch() -> None:
    model = network(0, patch_embedding="spt").eval()
    images = torch.zeros(1, 1, 8, 8, requires_grad=True)
    model.patch_embed(images + 0.1)[0, 0].sum().backward()
    assert images.grad is not None
    assert images.grad[0, 0, 5, 5] != 0
    assert images.grad[0, 0, 6, 6] == 0
