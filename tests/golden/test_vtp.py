"""Gated networks and what is sliced out of them, against float64 numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.golden import reference
from tests.golden.test_pruning import DEPTH, HEADS, SIZE, UNITS, WIDTH, A, Weights, images, network
from vitsearch.candidate import Candidate
from vitsearch.compress import PruneContext, prune
from vitsearch.compress.weights.vtp import GatedLinear, gate_penalty, rank_vtp
from vitsearch.models import VisionTransformer
from vitsearch.train.batches import Batch
from vitsearch.train.losses import LossTerm, Outputs

LAYERS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
SEEN: list[float] = []


def gates() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = dict(zip(LAYERS, (WIDTH, WIDTH, WIDTH, UNITS), strict=True))
    return {f"blocks.{b}.{layer}": rng.normal(size=sizes[layer]) for b in range(DEPTH) for layer in LAYERS}


def set_gates(model: VisionTransformer, epochs: int, terms: tuple[LossTerm, ...] = ()) -> None:
    """Stands for training: the gates get their values, fine-tuning changes nothing."""
    for name, module in model.named_modules():
        if isinstance(module, GatedLinear):
            module.gate_D.data = torch.from_numpy(gates()[name])
    if terms:
        nothing = torch.zeros(1, 4)
        batch = Batch(images_BCHW=nothing, targets=nothing, epoch=0, step=0, start=0)
        SEEN.append(terms[0](Outputs(cls_BK=nothing), batch).item())
    else:
        SEEN.append(-epochs)


def weights_with_gates(w: Weights) -> Weights:
    found = dict(w)
    for name, gate in gates().items():
        found[name + ".weight"] = w[name + ".weight"] @ np.diag(gate)
    return found


def logits(w: Weights) -> np.ndarray:
    return np.stack(
        [reference.forward(w, image, patch=2, heads=HEADS, reductions={})[0] for image in images(3).numpy()]
    )


def test_gates_are_multiplied_into_the_weights_and_punished():
    model, w = network()
    SEEN.clear()
    ranked = rank_vtp(model, PruneContext(train=set_gates, epochs=3))
    assert ranked.epochs == 2
    assert [*SEEN] == pytest.approx([1e-4 * sum(np.abs(gate).sum() for gate in gates().values())])
    with torch.no_grad():
        np.testing.assert_allclose(ranked.model(images(3)).numpy(), logits(weights_with_gates(w)), rtol=1e-9)
        np.testing.assert_allclose(model(images(3)).numpy(), logits(w), rtol=1e-9)
    assert {*ranked.model.state_dict()} == {*model.state_dict()}


def test_scores_are_the_sizes_of_the_gates():
    model, _ = network()
    scores = rank_vtp(model, PruneContext(train=set_gates, epochs=1)).scores
    a = {name: np.abs(gate) for name, gate in gates().items()}
    for b in range(DEPTH):
        qkv, proj, fc1, fc2 = (a[f"blocks.{b}.{layer}"] for layer in LAYERS)
        found = scores.blocks[b]
        np.testing.assert_allclose(found.mlp_units_M, fc2)
        for h in range(HEADS):
            np.testing.assert_allclose(found.v_HV[h], proj[h * SIZE : (h + 1) * SIZE])
            assert float(found.heads_H[h]) == pytest.approx(sum(proj[h * SIZE : (h + 1) * SIZE]))
        assert float(found.block) == pytest.approx(np.concatenate([qkv, proj, fc1, fc2]).mean())
    expected = [
        sum(a[f"blocks.{b}.{layer}"][c] for b in range(DEPTH) for layer in LAYERS[::2]) for c in range(WIDTH)
    ]
    np.testing.assert_allclose(scores.channels_D, expected)


def test_the_sliced_network_is_the_gated_one_with_weak_gates_at_zero():
    model, w = network()
    SEEN.clear()
    candidate = Candidate.model_validate(
        {"architecture": A, "sparsity": {"method": "vtp", "mlp_units": (3, 10, 6), "v_dim": (2, 4, 1)}}
    )
    pruned = prune(model, candidate, PruneContext(train=set_gates, epochs=5))
    assert SEEN[1:] == [-2]  # three epochs for the gates, two for fine-tuning
    gated = weights_with_gates(w)
    for b, (units, dims) in enumerate(((3, 2), (10, 4), (6, 1))):
        fc2, proj = (np.abs(gates()[f"blocks.{b}.{layer}"]) for layer in ("mlp.fc2", "attn.proj"))
        gated[f"blocks.{b}.mlp.fc2.weight"][:, np.argsort(fc2)[: UNITS - units]] = 0
        for h in range(HEADS):
            weak = np.argsort(proj[h * SIZE : (h + 1) * SIZE])[: SIZE - dims]
            gated[f"blocks.{b}.attn.proj.weight"][:, h * SIZE + weak] = 0
    with torch.no_grad():
        np.testing.assert_allclose(pruned(images(3)).numpy(), logits(gated), rtol=1e-8)


def test_without_epochs_there_are_no_gates():
    with pytest.raises(ValueError, match="finetune_epochs"):
        rank_vtp(network()[0], PruneContext())


def test_the_penalty_pulls_gates_to_zero():
    layer = GatedLinear(torch.nn.Linear(3, 2))
    layer.gate_D.data = torch.tensor([0.5, -2.0, 1.0])
    nothing = torch.zeros(1, 4)
    batch = Batch(images_BCHW=nothing, targets=nothing, epoch=0, step=0, start=0)
    gate_penalty(layer, 0.1)(Outputs(cls_BK=nothing), batch).backward()
    torch.testing.assert_close(layer.gate_D.grad, torch.tensor([0.1, -0.1, 0.1]))
