"""A budget of MACs: met within 1 %, by the units that matter least over all blocks."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
import torch

from tests.unit.compress.factory import candidate, images, network
from vitsearch.candidate import BlockWidths, Candidate, even_widths, products
from vitsearch.compress import PRUNERS, PruneContext, assemble, prune
from vitsearch.compress.weights import BlockUnits, Units
from vitsearch.compress.weights.budget import widths_within
from vitsearch.cost import num_macs, num_params
from vitsearch.profile.macs import count_macs

TOKENS: list[dict[str, Any]] = [
    {"reducer": "none"},
    {"reducer": "tome", "r": 4},
    {"reducer": "evit", "keep": 0.5, "blocks": [1]},
]
DEEP = {"depth": 6, "width": 48, "heads": 6, "mlp_ratio": 4.0}


def budgeted(ratio: float, tokens: dict[str, Any], **settings: Any) -> Candidate:
    return candidate(DEEP, tokens=tokens, sparsity={"method": "magnitude", "macs_ratio": ratio, **settings})


@pytest.mark.parametrize("tokens", TOKENS, ids=lambda rule: str(rule["reducer"]))
@pytest.mark.parametrize("ratio", [0.15, 0.37, 0.5, 0.81, 0.97])
@torch.no_grad()
def test_it_is_met_within_one_percent(ratio: float, tokens: dict[str, Any]):
    c = budgeted(ratio, tokens)
    counts = tuple(c.tokens.token_counts(c.architecture))
    dense = network(c)
    pruned = prune(dense, c)
    whole = products(dense.widths, counts)
    assert products(pruned.widths, counts) / whole == pytest.approx(ratio, rel=0.01)
    assert products(c.widths, counts) / whole == pytest.approx(ratio, rel=0.01)
    assert count_macs(pruned.eval(), images()) == pytest.approx(num_macs(c), rel=0.01)
    assert len({w.mlp_units for w in pruned.widths}) > 1  # the ranking decides, not the share


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("method", PRUNERS)
@torch.no_grad()
def test_every_ranking_and_schedule_meets_it(method: str, steps: int):
    c = budgeted(0.4, {"reducer": "none"}, method=method, steps=steps)
    context = PruneContext(batches=[(images(4), torch.arange(4))], epochs=6)
    pruned = prune(network(c), c, context)
    assert products(pruned.widths, (17,) * 7) == pytest.approx(
        0.4 * products(network(c).widths, (17,) * 7), rel=0.01
    )


@torch.no_grad()
def test_weights_tell_the_shape():
    c = budgeted(0.4, {"reducer": "tome", "r": 2})
    pruned = prune(network(c), c)
    again = assemble(c, pruned.state_dict())
    again.load_state_dict(pruned.state_dict())
    assert again.widths == pruned.widths != c.widths
    assert torch.equal(again(images()), pruned.eval()(images()))
    assert sum(p.numel() for p in assemble(c).parameters()) == num_params(c)
    assert assemble(c, {}).widths == c.widths


def by_hand(scores: Units, widths: list[BlockWidths], tokens: list[int], budget: float) -> list[tuple[int, int]]:
    """Heads and units of each block, with lists instead of tensors."""
    counts = [[w.heads, w.mlp_units] for w in widths]
    w = widths[0]
    price = [
        ((2 * n * w.width + n * n) * (w.qk_dim + w.v_dim), 2 * m * w.width) for n, m in itertools.pairwise(tokens)
    ]

    def cost() -> float:
        return sum(h * price[b][0] + u * price[b][1] for b, (h, u) in enumerate(counts))

    ranked = []
    for kind in (0, 1):
        figures = [(block.heads_H, block.mlp_units_M)[kind].tolist() for block in scores.blocks]
        mean = sum(map(sum, figures)) / sum(map(len, figures))
        ranked += [(value / mean, b, kind) for b, one in enumerate(figures) for value in one]
    for _, b, kind in sorted(ranked):
        if cost() > budget and counts[b][kind] > 1 and cost() - price[b][kind] >= 0.99 * budget:
            counts[b][kind] -= 1
    return [(h, u) for h, u in counts]


def test_the_least_of_all_go_first():
    generator = random.Random(1)
    widths = [BlockWidths(width=8, heads=4, qk_dim=3, v_dim=5, mlp_units=20)] * 3
    tokens = [10, 7, 7, 4]

    def drawn(count: int, scale: float) -> torch.Tensor:
        return torch.tensor([scale * generator.random() for _ in range(count)], dtype=torch.float64)

    scores = Units(
        channels_D=drawn(8, 1),
        blocks=tuple(
            BlockUnits(
                mlp_units_M=drawn(20, 1 + b), heads_H=drawn(4, 100), qk_HQ=drawn(12, 1).view(4, 3),
                v_HV=drawn(20, 1).view(4, 5), block=drawn(1, 1)[0],
            )
            for b in range(3)
        ),
    )  # fmt: skip
    for ratio in (0.3, 0.5, 0.7, 0.9):
        budget = ratio * products(tuple(widths), tuple(tokens))
        found = widths_within(budget, scores, widths, tokens)
        assert [(w.heads, w.mlp_units) for w in found] == by_hand(scores, widths, tokens, budget)
        assert products(found, tuple(tokens)) == pytest.approx(budget, rel=0.02)


def test_an_even_share_of_everything():
    dense = (BlockWidths(width=48, heads=6, qk_dim=8, v_dim=8, mlp_units=192),) * 3
    half = even_widths(dense, (17, 17, 17, 17), 0.5)
    assert [w.heads for w in half] == [3, 3, 3]
    assert [w.mlp_units for w in half] == [96, 96, 96]
    assert even_widths(dense, (17, 17, 17, 17), 1.0) == dense


@pytest.mark.parametrize(
    ("sparsity", "message"),
    [
        ({"macs_ratio": 0.01}, r"sparsity.macs_ratio must be at least 0.\d+, which one head"),
        ({"macs_ratio": 0.5, "heads": 2, "width": 12}, "got width, heads beside it; remove one"),
        ({"macs_ratio": 0.5, "method": "none"}, "sparsity.method must be named"),
        ({"macs_ratio": 1.5}, "less than or equal to 1"),
    ],
)
def test_what_cannot_be(sparsity: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        candidate(sparsity={"method": "magnitude", **sparsity})


def test_a_ratio_of_one_prunes_nothing():
    assert budgeted(1.0, {"reducer": "none"}).canonical() == candidate(DEEP).canonical()
    assert budgeted(0.5, {"reducer": "none"}).summary() == "d6 w48 h6 p2 m4 · MACs 50%"
