"""What goes from one step of pruning to the next."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from tests.unit.compress.factory import candidate, images, network
from vitsearch.compress import PruneContext, prune
from vitsearch.models import VisionTransformer

FEWER_UNITS: dict[str, Any] = {"method": "magnitude", "mlp_units": 20, "steps": 3}


def learned(model: VisionTransformer) -> list[torch.Tensor]:
    found = [block.reducer for block in model.blocks if isinstance(block.reducer, nn.Module)]
    return [value.detach().clone() for reducer in found for value in reducer.state_dict().values()]


@pytest.mark.parametrize(
    ("tokens", "sparsity"),
    [
        ({"reducer": "dynamicvit"}, FEWER_UNITS),
        ({"reducer": "ltmp", "target": 0.7}, {**FEWER_UNITS, "method": "taylor"}),
        ({"reducer": "topk", "keep": 0.5, "score": "learned"}, {**FEWER_UNITS, "blocks": 2}),
    ],
    ids=lambda one: one.get("reducer"),
)
def test_reducers_go_on_learning_from_step_to_step(tokens: dict[str, Any], sparsity: dict[str, Any]) -> None:
    states: list[tuple[list[torch.Tensor], list[torch.Tensor]]] = []

    def train(model: VisionTransformer, epochs: int, terms: object = ()) -> None:
        entering = learned(model)
        with torch.no_grad():
            for block in model.blocks:
                if isinstance(block.reducer, nn.Module):
                    for parameter in block.reducer.parameters():
                        parameter.add_(torch.randn_like(parameter))
        states.append((entering, learned(model)))

    c = candidate(tokens=tokens, sparsity=sparsity)
    context = PruneContext(seed=0, batches=((images(4), torch.arange(4)),), train=train, epochs=3)
    pruned = prune(network(c), c, context)
    assert len(states) == 3
    assert states[0][0]
    for (_, left), (entering, _) in itertools.pairwise(states):
        assert all(map(torch.equal, left, entering))
    assert all(map(torch.equal, states[-1][1], learned(pruned)))


def test_reducers_of_fewer_channels_begin_anew() -> None:
    shapes: list[list[torch.Size]] = []

    def train(model: VisionTransformer, epochs: int, terms: object = ()) -> None:
        shapes.append([value.shape for value in learned(model)])

    c = candidate(tokens={"reducer": "dynamicvit"}, sparsity={"method": "magnitude", "width": 16, "steps": 2})
    prune(network(c), c, PruneContext(seed=0, train=train, epochs=2))
    assert len(shapes) == 2
    assert shapes[0] != shapes[1]
