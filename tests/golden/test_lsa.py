"""Locality self-attention against its definition, number by number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.train.factory import architecture, network, spec, tensor_data
from tests.unit.trial.factory import context, request
from vitsearch.candidate import Architecture, Candidate
from vitsearch.compress import assemble
from vitsearch.compress.tokens.scores import SCORE_KERNELS
from vitsearch.cost import cost_of
from vitsearch.messages import TrialResult
from vitsearch.models import Attention, build_dense
from vitsearch.models.lsa import fold_temperatures, learn_temperatures
from vitsearch.onnx import OnnxModel, export_onnx
from vitsearch.profile.macs import count_macs
from vitsearch.train.loop import train
from vitsearch.trial import load_model, run_trial


def attention(seed: int = 0) -> Attention:
    torch.manual_seed(seed)
    layer = Attention(12, 3, 4, hides_self=True)
    learn_temperatures(layer)
    with torch.no_grad():
        assert layer.temperature_H is not None
        torch.testing.assert_close(layer.temperature_H, torch.full((3,), 2.0))  # sqrt(K)
        layer.temperature_H.copy_(torch.tensor([0.7, 2.0, 3.1]))
        layer.qkv.bias.uniform_(-1, 1)
    return layer.double().eval()


def reference(x: np.ndarray, layer: Attention, sizes: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Output and attention matrix: every pair of tokens but a token with itself."""
    weight, bias = layer.qkv.weight.detach().numpy(), layer.qkv.bias.detach().numpy()
    proj, proj_bias = layer.proj.weight.detach().numpy(), layer.proj.bias.detach().numpy()
    assert layer.temperature_H is not None
    tau = layer.temperature_H.detach().numpy()
    B, N, D = x.shape
    H, K = layer.num_heads, layer.head_dim
    out, matrix = np.zeros((B, N, D)), np.zeros((B, H, N, N))
    for b in range(B):
        qkv = (x[b] @ weight.T + bias).reshape(N, 3, H, K)
        joined = np.zeros((N, H, K))
        for h in range(H):
            for i in range(N):
                logits = np.full(N, -np.inf)
                for j in range(N):
                    if i != j:
                        size = 1.0 if sizes is None else sizes[b, j]
                        logits[j] = qkv[i, 0, h] @ qkv[j, 1, h] / tau[h] + np.log(size)
                row = np.exp(logits - logits.max())
                matrix[b, h, i] = row / row.sum()
                joined[i, h] = matrix[b, h, i] @ qkv[:, 2, h]
        out[b] = joined.reshape(N, H * K) @ proj.T + proj_bias
    return out, matrix


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("with_sizes", [True, False])
def test_lsa(fused: bool, with_sizes: bool) -> None:
    layer = attention()
    layer.fused = fused
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    sizes = torch.randint(1, 4, (2, 7)).double() if with_sizes else None
    with torch.no_grad():
        found, state = layer(x, None if sizes is None else sizes.log()[:, None, None, :])
    out, matrix = reference(x.numpy(), layer, None if sizes is None else sizes.numpy())
    np.testing.assert_allclose(found.numpy(), out, atol=1e-12)
    np.testing.assert_allclose(state.cls_attention_BHN().numpy(), matrix[:, :, 0], atol=1e-12)
    received = SCORE_KERNELS["attention_received"](x, state, 1).numpy()
    np.testing.assert_allclose(received, matrix.sum(axis=(1, 2))[:, 1:], atol=1e-12)


def test_folded_temperatures_change_no_output() -> None:
    layer = attention()
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    with torch.no_grad():
        before, _ = layer(x)
        fold_temperatures(layer)
        after, _ = layer(x)
    assert layer.temperature_H is None
    assert "temperature_H" not in layer.state_dict()
    torch.testing.assert_close(after, before)


def test_a_token_that_is_alone_attends_to_itself() -> None:
    layer = attention()
    with torch.no_grad():
        assert layer(torch.randn(1, 1, 12, dtype=torch.float64))[0].isfinite().all()


def test_temperatures_are_learned() -> None:
    model = network(0, attention="lsa")
    learn_temperatures(model)
    before = [block.attn.temperature_H.detach().clone() for block in model.blocks]
    train(model, tensor_data(), spec(lr=1e-2), seed=0)
    assert all(not torch.equal(b.attn.temperature_H, t) for b, t in zip(model.blocks, before, strict=True))


def test_its_cost_is_that_of_softmax_and_exact() -> None:
    a = architecture(attention="lsa")
    cost = cost_of(Candidate(architecture=a))
    assert cost == cost_of(Candidate(architecture=architecture()))
    model = build_dense(a).eval()
    assert cost.num_params == sum(p.numel() for p in model.parameters())
    assert cost.num_macs == count_macs(model, torch.zeros(1, 1, 8, 8))
    assert "attention" not in architecture().model_dump(mode="json"), "older candidates keep their hash"
    assert Architecture.model_validate_json(a.model_dump_json()) == a


PARTS: dict[str, dict[str, Any]] = {
    "dense": {},
    "tome": {"tokens": {"reducer": "tome", "r": 3}},
    "pruned": {"sparsity": {"method": "magnitude", "heads": 1, "mlp_units": 20}},
    "quantised": {"precision": {"weight_bits": 8, "activation_bits": 8}},
}


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param(parts, id=name, marks=() if name == "tome" else pytest.mark.slow)
        for name, parts in PARTS.items()
    ],
)
def test_a_trial_ends_with_a_network_that_runs_anywhere(parts: dict[str, Any], tmp_path: Path) -> None:
    a = architecture(patch_size=2, attention="lsa", patch_embedding="spt")
    candidate = Candidate.model_validate({"architecture": a.model_dump(), **parts}).canonical()
    outcome = run_trial(request(tmp_path, candidate), context())
    assert isinstance(outcome, TrialResult), outcome
    model = load_model(candidate, tmp_path)
    assert set(model.state_dict()) == set(assemble(candidate).state_dict())
    export_onnx(model, tmp_path / "model.onnx", in_chans=1, image_size=8)
    images = torch.randn(4, 1, 8, 8)
    with torch.inference_mode():
        expected = model(images)
    found = torch.from_numpy(OnnxModel(tmp_path / "model.onnx")(images.numpy()))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
