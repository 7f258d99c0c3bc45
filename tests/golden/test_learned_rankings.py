"""X-Pruner and WDPruning against float64 numpy with loops over images, units and classes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from tests.golden import reference
from tests.golden.test_pruning import (
    DEPTH,
    HEADS,
    SIZE,
    UNITS,
    WIDTH,
    A,
    Weights,
    images,
    magnitude,
    network,
    places,
)
from vitsearch.candidate import BlockWidths, Candidate, products
from vitsearch.compress import PruneContext, prune
from vitsearch.compress.weights.units import strongest
from vitsearch.compress.weights.wdpruning import SalientLinear, rank_wdpruning
from vitsearch.compress.weights.xpruner import ExplainedLinear, rank_xpruner
from vitsearch.models import VisionTransformer
from vitsearch.train.batches import Batch
from vitsearch.train.losses import LossTerm, Outputs

CLASSES, TOKENS, SHARE = 4, (10, 10, 7, 5), 0.6
LABELS = [2, 0, 3]
Array = np.ndarray[Any, np.dtype[Any]]


def names() -> list[tuple[str, int]]:
    return [
        (f"blocks.{b}.{layer}", n) for b in range(DEPTH) for layer, n in (("attn.proj", HEADS), ("mlp.fc2", UNITS))
    ]


def drawn() -> dict[str, tuple[Array, float]]:
    """What training is to have learnt: figures around 1 for each unit (and class), and a threshold."""
    rng = np.random.default_rng(5)
    return {name: (rng.normal(0.6, 0.5, (n, CLASSES)), rng.uniform(0.3, 0.7)) for name, n in names()}


def batch(targets: torch.Tensor) -> Batch:
    return Batch(images_BCHW=images(3), targets=targets, epoch=0, step=0, start=0)


def logits(w: Weights, image: Array) -> Array:
    return reference.forward(w, image, patch=2, heads=HEADS, reductions={})[0]


def scaled_inputs(w: Weights, gates: dict[str, Array]) -> Weights:
    """The inputs of the projections, multiplied by a gate for each unit."""
    found = dict(w)
    for name, gate in gates.items():
        per_input = np.repeat(gate, found[name + ".weight"].shape[1] // len(gate))
        found[name + ".weight"] = found[name + ".weight"] * per_input[None]
    return found


def share(gates: dict[str, Array]) -> float:
    left = whole = 0.0
    for b in range(DEPTH):
        n, m = TOKENS[b], TOKENS[b + 1]
        head = n * WIDTH * SIZE * 4 + 2 * n * n * SIZE  # q, k, v and output; two products
        left += head * gates[f"blocks.{b}.attn.proj"].sum() + 2 * m * WIDTH * gates[f"blocks.{b}.mlp.fc2"].sum()
        whole += head * HEADS + 2 * m * WIDTH * UNITS
    return left / whole


def cross_entropy(all_logits: list[Array], targets: Array) -> float:
    return -float(
        np.mean([t @ np.log(reference.softmax(one)) for one, t in zip(all_logits, targets, strict=True)])
    )


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("soft", [False, True], ids=["labels", "mixed labels"])
def test_xpruner(soft: bool):
    model, w = network()
    figures, losses = drawn(), []
    mixed = np.random.default_rng(1).dirichlet(np.ones(CLASSES), 3)
    targets_BK = mixed if soft else np.eye(CLASSES)[LABELS]

    def train(one: VisionTransformer, epochs: int, terms: tuple[LossTerm, ...] = ()) -> None:
        assert epochs == 2
        for name, module in one.named_modules():
            if isinstance(module, ExplainedLinear):
                module.raw_mask_UK.data = torch.from_numpy(figures[name][0] / 10)
                module.raw_threshold.data = torch.tensor(figures[name][1] / 10, dtype=torch.float64)
        plain = one(images(3))
        np.testing.assert_allclose(plain, [logits(w, image) for image in images(3).numpy()], rtol=1e-9)
        targets = torch.from_numpy(mixed) if soft else torch.tensor(LABELS)
        loss = terms[0](Outputs(cls_BK=plain), batch(targets))
        loss.backward()
        learning = {name for name, p in one.named_parameters() if p.grad is not None}
        assert {name.rsplit(".", 1)[1] for name in learning} == {"raw_mask_UK", "raw_threshold"}
        losses.append(loss.item())

    context = PruneContext(train=train, epochs=3, tokens=TOKENS, macs_share=SHARE)
    ranked = rank_xpruner(model, context)
    assert ranked.model is model
    assert (ranked.epochs, ranked.across_kinds) == (2, True)
    assert all(p.requires_grad for p in model.parameters())

    gates, constraints = {}, 0.0
    for name, (mask, theta) in figures.items():
        gates[name] = sigmoid((np.abs(mask).sum(axis=1) / CLASSES - theta) / 0.1)
        for row in mask:
            constraints += sum(1e-4 * abs(m) + 1e-4 * (m - row.mean()) ** 2 for m in row) / CLASSES
    masked = [
        logits(scaled_inputs(w, {name: mask @ t * gates[name] for name, (mask, _) in figures.items()}), image)
        for image, t in zip(images(3).numpy(), targets_BK, strict=True)
    ]
    expected = cross_entropy(masked, targets_BK) + constraints + 10 * (share(gates) - SHARE) ** 2
    assert losses == [pytest.approx(expected, rel=1e-5)]

    for b, block in enumerate(ranked.scores.blocks):
        parts = []
        for layer, found in (("attn.proj", block.heads_H), ("mlp.fc2", block.mlp_units_M)):
            mask, theta = figures[f"blocks.{b}.{layer}"]
            parts.append(np.abs(mask).mean(axis=1) - theta)
            np.testing.assert_allclose(found, parts[-1], rtol=1e-9)
        assert float(block.block) == pytest.approx(np.concatenate(parts).mean())
        assert float(block.qk_HQ[1, 2]) == pytest.approx(magnitude(w, places("qk_HQ", b, (1, 2))))


def test_wdpruning():
    model, w = network()
    figures, seen = drawn(), []
    heads = np.random.default_rng(2).normal(0, 1, (DEPTH + 1, CLASSES, WIDTH))
    masks = {name: (one[:, 0] > theta).astype(float) for name, (one, theta) in figures.items()}
    assert 0 < sum(mask.sum() for mask in masks.values()) < DEPTH * (HEADS + UNITS)

    def train(one: VisionTransformer, epochs: int, terms: tuple[LossTerm, ...] = ()) -> None:
        assert epochs == 2
        for name, module in one.named_modules():
            if isinstance(module, SalientLinear):
                n = len(module.raw_saliency_U)
                kind, b = ("heads_H", "mlp_units_M")[n == UNITS], int(name.split(".")[1])
                norms = np.array([magnitude(w, places(kind, b, (u,))) for u in range(n)])
                np.testing.assert_allclose(30 * module.raw_saliency_U.detach(), norms / norms.mean(), rtol=1e-9)
                assert 30 * module.raw_threshold.item() == pytest.approx(0.5)
                module.raw_saliency_U.data = torch.from_numpy(figures[name][0][:, 0] / 30)
                module.raw_threshold.data = torch.tensor(figures[name][1] / 30, dtype=torch.float64)
        for head, weight in zip(one.auxiliary.heads, heads, strict=True):
            head.weight.data = torch.from_numpy(weight)
        out = one(images(3))
        parts = [term(Outputs(cls_BK=out), batch(torch.tensor(LABELS))) for term in terms]
        sum(parts).backward()  # type: ignore[union-attr]
        assert one.patch_embed.proj.weight.grad is None  # classifiers only watch
        assert all(p.grad is not None for name, p in one.named_parameters() if "raw_" in name or "auxil" in name)
        fc2 = one.blocks[1].mlp.fc2
        assert float(fc2.raw_threshold.grad) == pytest.approx(-float(fc2.raw_saliency_U.grad.sum()))
        seen.extend([out.detach().numpy(), *(part.item() for part in parts)])

    context = PruneContext(
        train=train, epochs=4, tokens=TOKENS, macs_share=SHARE, batches=[(images(3), torch.tensor(LABELS))]
    )
    ranked = rank_wdpruning(model, context)
    assert (ranked.epochs, ranked.across_kinds) == (2, True)
    assert {*ranked.model.state_dict()} == {*model.state_dict()}
    assert not ranked.model.blocks[0]._forward_hooks

    masked = scaled_inputs(w, masks)
    np.testing.assert_allclose(seen[0], [logits(masked, image) for image in images(3).numpy()], rtol=1e-8)
    assert seen[1] == pytest.approx(10 * (share(masks) - SHARE) ** 2)

    def loss_after(blocks: int) -> float:
        """Of the classifier on the CLS token after so many blocks: the network cut there."""
        found = []
        for image in images(3).numpy():
            cut = dict(masked)
            for b in range(blocks, DEPTH):
                for layer in ("attn.proj", "mlp.fc2"):
                    cut |= {
                        f"blocks.{b}.{layer}.{p}": 0 * cut[f"blocks.{b}.{layer}.{p}"] for p in ("weight", "bias")
                    }
            cut |= {"norm.weight": np.ones(WIDTH), "norm.bias": np.zeros(WIDTH)}
            cut |= {"head.weight": heads[blocks], "head.bias": np.zeros(CLASSES)}
            found.append(logits(cut, image))
        return cross_entropy(found, np.eye(CLASSES)[LABELS])

    losses = [loss_after(blocks) for blocks in range(DEPTH + 1)]
    assert seen[2] == pytest.approx(np.mean(losses), rel=1e-4)
    for b, block in enumerate(ranked.scores.blocks):
        assert float(block.block) == pytest.approx(losses[b] - losses[b + 1], rel=1e-3)
        for layer, found in (("attn.proj", block.heads_H), ("mlp.fc2", block.mlp_units_M)):
            one, theta = figures[f"blocks.{b}.{layer}"]
            np.testing.assert_allclose(found, one[:, 0] - theta, rtol=1e-9)


def test_the_sliced_network_is_the_masked_one():
    """Where the candidate keeps as many heads and units of each block as are above the thresholds."""
    model, w = network()
    figures = drawn()
    masks = {name: (one[:, 0] > theta).astype(float) for name, (one, theta) in figures.items()}
    heads, units = (
        [int(masks[f"blocks.{b}.{layer}"].sum()) for b in range(DEPTH)] for layer in ("attn.proj", "mlp.fc2")
    )
    assert min(heads + units) > 0

    def train(one: VisionTransformer, epochs: int, terms: tuple[LossTerm, ...] = ()) -> None:
        for name, module in one.named_modules():
            if isinstance(module, SalientLinear):
                module.raw_saliency_U.data = torch.from_numpy(figures[name][0][:, 0] / 30)
                module.raw_threshold.data = torch.tensor(figures[name][1] / 30, dtype=torch.float64)

    sparsity = {"method": "wdpruning", "heads": tuple(heads), "mlp_units": tuple(units)}
    c = Candidate.model_validate({"architecture": A, "sparsity": sparsity})
    pruned = prune(model, c, PruneContext(train=train, epochs=2))
    masked = scaled_inputs(w, masks)
    with torch.no_grad():
        np.testing.assert_allclose(
            pruned(images(3)), [logits(masked, one) for one in images(3).numpy()], rtol=1e-8
        )


@pytest.mark.parametrize("method", ["xpruner", "wdpruning"])
@pytest.mark.parametrize("kept", [{"mlp_units": (2, 10, 5), "heads": 2}, {"macs_ratio": 0.55}], ids=str)
def test_the_budget_is_the_candidates(method: str, kept: dict[str, Any]):
    model, _ = network()
    shares: list[float] = []
    targets = torch.tensor(LABELS)

    def train(one: VisionTransformer, epochs: int, terms: tuple[LossTerm, ...] = ()) -> None:
        if not terms:
            return
        for module in one.modules():  # no unit stays: the share is 0, whose distance to R* is R*
            if isinstance(module, ExplainedLinear | SalientLinear):
                module.raw_threshold.data += 1e3
        outputs = Outputs(cls_BK=one(images(3)))
        shares.append(math.sqrt(terms[0](outputs, batch(targets)).item() / 10))

    c = Candidate.model_validate({"architecture": A, "sparsity": {"method": method, **kept}})
    found = prune(model, c, PruneContext(train=train, epochs=2))
    expected = products(found.widths, (10,) * 4) / products(model.widths, (10,) * 4)
    # the loss of xpruner has its cross-entropy and constraints, too
    assert shares == [pytest.approx(expected, rel=0.02)] if method == "wdpruning" else shares[0] > expected


@pytest.mark.parametrize("method", ["xpruner", "wdpruning"])
def test_without_epochs_there_is_nothing_to_learn_in(method: str):
    c = Candidate.model_validate({"architecture": A, "sparsity": {"method": method, "heads": 2}})
    with pytest.raises(ValueError, match=f"the {method} ranking has to learn; set train.finetune_epochs to 2"):
        prune(network()[0], c)


def test_ties_keep_the_first_blocks():
    scores = rank_wdpruning(network()[0], PruneContext(epochs=2)).scores
    assert strongest(torch.stack([block.block for block in scores.blocks]), 2).tolist() == [0, 1]


def test_head_macs_are_those_of_the_share():
    w = BlockWidths(width=WIDTH, heads=HEADS, qk_dim=SIZE, v_dim=SIZE, mlp_units=UNITS)
    assert w.head_macs(7) == 7 * WIDTH * SIZE * 4 + 2 * 49 * SIZE
