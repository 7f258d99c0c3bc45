"""Importance less latency, against loops; the table is what clocks say."""

from __future__ import annotations

import pytest
import torch

from tests.golden.test_pruning import HEADS, UNITS, A, images, network, places, taylor, units
from vitsearch.candidate import Candidate, products
from vitsearch.compress import PruneContext, prune
from vitsearch.compress.weights import latency, nvit
from vitsearch.compress.weights.latency import Gains
from vitsearch.compress.weights.nvit import rank_nvit

GAINS = (Gains(3e-4, 1e-5), Gains(2e-4, 0.0), Gains(5e-5, 7e-6))
BATCHES = [(images(3), [0, 3, 1]), (images(2), [2, 2])]


def context(**settings: object) -> PruneContext:
    return PruneContext(batches=[(x, torch.tensor(y)) for x, y in BATCHES], **settings)  # type: ignore[arg-type]


def table(monkeypatch: pytest.MonkeyPatch, gains: tuple[Gains, ...]) -> list[tuple[int, ...]]:
    seen: list[tuple[int, ...]] = []

    def measured(widths: object, tokens: tuple[int, ...], device: object) -> tuple[Gains, ...]:
        seen.append(tuple(tokens))
        return gains

    monkeypatch.setattr(nvit, "latency_gains", measured)
    return seen


def test_scores(monkeypatch: pytest.MonkeyPatch):
    seen = table(monkeypatch, GAINS)
    model, w = network()
    ranked = rank_nvit(model, context(tokens=(10, 8, 5)))
    assert ranked.across_kinds
    assert seen == [(10, 10, 8, 5)]  # two blocks stay of three

    def importance(kind: str, block: int, index: tuple[int, ...]) -> float:
        return taylor(w, places(kind, block, index), BATCHES)

    total = sum(importance("heads_H", b, (h,)) for b in range(3) for h in range(HEADS))
    total += sum(importance("mlp_units_M", b, (j,)) for b in range(3) for j in range(UNITS))
    time = sum(HEADS * gain.head + UNITS * gain.unit for gain in GAINS)

    def expected(kind: str, block: int, index: tuple[int, ...]) -> float:
        if kind == "block":
            heads = [expected("heads_H", block, (h,)) for h in range(HEADS)]
            return sum(heads) + sum(expected("mlp_units_M", block, (j,)) for j in range(UNITS))
        gain = {"heads_H": GAINS[block].head, "mlp_units_M": GAINS[block].unit}.get(kind, 0.0)
        return importance(kind, block, index) / total - 0.1 * gain / time

    for kind, block, index in units():
        scores = ranked.scores
        found = scores.channels_D if kind == "channels_D" else getattr(scores.blocks[block], kind)
        assert float(found[index]) == pytest.approx(expected(kind, block, index), rel=1e-3, abs=1e-9), (
            kind,
            block,
        )


def test_a_costly_kind_goes_first_and_the_budget_is_met(monkeypatch: pytest.MonkeyPatch):
    model, _ = network()
    c = Candidate.model_validate({"architecture": A, "sparsity": {"method": "nvit", "macs_ratio": 0.6}})
    left = {}
    for name, gain in (("heads", Gains(1.0, 0.0)), ("mlp_units", Gains(0.0, 1.0))):
        table(monkeypatch, (gain,) * 3)
        monkeypatch.setattr(nvit.less_latency, "__defaults__", (50.0,))
        found = prune(model, c, context())
        left[name] = [(w.heads, w.mlp_units) for w in found.widths]
        assert products(found.widths, (10,) * 4) <= 0.6 * products(model.widths, (10,) * 4)
    heads, count = ({name: sum(one[i] for one in found) for name, found in left.items()} for i in (0, 1))
    assert heads["heads"] < heads["mlp_units"]
    assert count["mlp_units"] < 0.3 * 3 * UNITS < 2 * UNITS < count["heads"]  # the rest makes up for a whole head


def test_tokens_of_blocks_that_may_go():
    model, _ = network()
    assert PruneContext(tokens=(9, 8, 7, 5)).tokens_of(model) == (9, 8, 7, 5)
    assert PruneContext(tokens=(9, 7, 5)).tokens_of(model) == (9, 9, 7, 5)
    assert PruneContext().tokens_of(model) == (10,) * 4


def test_gains_are_slopes_between_measured_sizes(monkeypatch: pytest.MonkeyPatch):
    def attention(width: int, heads: int, qk: int, v: int, tokens: int, device: str) -> float:
        return 1.0 + heads * tokens

    monkeypatch.setattr(latency, "attention_seconds", attention)
    monkeypatch.setattr(latency, "mlp_seconds", lambda width, units, tokens, device: 5.0 - units)  # noqa: ARG005
    widths = network()[0].widths
    found = latency.latency_gains(widths, (10, 7, 5, 2), torch.device("cpu"))
    assert found == (Gains(10.0, 0.0), Gains(7.0, 0.0), Gains(5.0, 0.0))  # what costs nothing gains nothing


def test_the_table_is_measured_and_kept():
    latency.attention_seconds.cache_clear()
    latency.mlp_seconds.cache_clear()
    widths = network()[0].widths
    first = latency.latency_gains(widths, (10, 10, 4, 4), torch.device("cpu"))
    assert latency.attention_seconds(12, 3, 4, 4, 10, "cpu") > 0
    assert first == latency.latency_gains(widths, (10, 10, 4, 4), torch.device("cpu"))
    assert latency.attention_seconds.cache_info().misses == 4  # two numbers of tokens, two of heads
    large = latency.mlp_seconds(64, 512, 64, "cpu")
    assert large > latency.mlp_seconds(64, 8, 64, "cpu")


def test_it_needs_labels():
    with pytest.raises(ValueError, match="nvit ranking needs labelled batches"):
        rank_nvit(network()[0], PruneContext())
