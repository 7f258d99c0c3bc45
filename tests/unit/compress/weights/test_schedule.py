from __future__ import annotations

from typing import Any

import pytest

from tests.unit.compress.factory import candidate, images, network
from vitsearch.compress import PruneContext, prune
from vitsearch.compress.weights.schedule import steps_of
from vitsearch.models import VisionTransformer
from vitsearch.train.losses import LossTerm

FINAL = {"blocks": 2, "width": 12, "heads": 2, "qk_dim": 3, "v_dim": (6, 2), "mlp_units": (8, 48)}


def widths(schedule: str, steps: int, epochs: int) -> list[Any]:
    c = candidate(sparsity={"method": "magnitude", "steps": steps, "schedule": schedule, **FINAL})
    return [(step.epochs, step.widths) for step in steps_of(c, c.widths, epochs)]


@pytest.mark.parametrize(("schedule", "units"), [("linear", [38, 28, 18, 8]), ("cubic", [25, 13, 9, 8])])
def test_the_share_grows_along_the_curve(schedule: str, units: list[int]):
    # 40 of 48 units go: 10, 20, 30, 40 of them, or 1 - (3/4)^3 = 23.1, 1 - (1/2)^3 = 35, 39.4, 40
    found = widths(schedule, 4, 6)
    assert [step[0].mlp_units for _, step in found] == units
    assert [step[1].mlp_units for _, step in found] == [48] * 4
    assert [epochs for epochs, _ in found] == [1, 2, 1, 2]
    last = found[-1][1]
    assert [(w.width, w.heads, w.qk_dim, w.v_dim) for w in last] == [(12, 2, 3, 6), (12, 2, 3, 2)]


def test_blocks_go_in_the_first_step():
    assert [len(step) for _, step in widths("linear", 3, 3)] == [2, 2, 2]


@pytest.mark.parametrize(("steps", "epochs", "expected"), [(5, 2, [1, 1]), (3, 0, [0]), (1, 4, [4]), (2, 1, [1])])
def test_no_step_is_without_training(steps: int, epochs: int, expected: list[int]):
    assert [spent for spent, _ in widths("linear", steps, epochs)] == expected


def test_every_step_prunes_what_the_one_before_left_and_trains():
    seen: list[tuple[list[int], list[int], int, bool]] = []

    def record(model: VisionTransformer, epochs: int, terms: tuple[LossTerm, ...] = ()) -> None:
        assert not terms
        units = [block.mlp.fc1.out_features for block in model.blocks]
        heads = [block.attn.num_heads for block in model.blocks]
        seen.append((units, heads, epochs, model.blocks[0].reducer is not None))
        for parameter in model.parameters():
            parameter.data += 0.01

    c = candidate(
        tokens={"reducer": "tome", "r": 2},
        sparsity={"method": "magnitude", "mlp_units": 8, "heads": 2, "steps": 2},
    )
    found = prune(network(c), c, PruneContext(train=record, epochs=3))
    assert seen == [([28] * 3, [3] * 3, 1, True), ([8] * 3, [2] * 3, 2, True)]
    assert found.eval()(images()).isfinite().all()


@pytest.mark.parametrize(("method", "epochs", "expected"), [
    ("magnitude", 3, [1, 1, 1]), ("vtp", 3, [3]), ("xpruner", 5, [2, 3]), ("wdpruning", 6, [2, 2, 2]),
    ("vtp", 0, [0]),
])  # fmt: skip
def test_a_ranking_that_learns_has_two_epochs_in_every_step(method: str, epochs: int, expected: list[int]):
    c = candidate(sparsity={"method": method, "heads": 2, "steps": 3})
    assert [step.epochs for step in steps_of(c, c.widths, epochs)] == expected
