"""What a recipe asks for reaches the network and the batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm.data
import torch
from torch import nn

from tests.unit.train.factory import network, spec, tensor_data
from tests.unit.trial import factory as trial_factory
from vitsearch.config import RECIPES, TrainSpec
from vitsearch.messages import TrialResult
from vitsearch.train.loop import train
from vitsearch.trial import run as trial_run
from vitsearch.trial import run_trial


@pytest.fixture
def mixups(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Settings of every mixup that is made, and how many batches each one mixes."""
    made: list[dict[str, Any]] = []

    class Spy(timm.data.Mixup):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            names = ("mixup_alpha", "cutmix_alpha", "label_smoothing", "num_classes")
            self.record = {name: getattr(self, name) for name in names} | {"batches": 0}
            made.append(self.record)

        def __call__(self, *args: Any) -> Any:
            self.record["batches"] += 1
            return super().__call__(*args)

    monkeypatch.setattr(timm.data, "Mixup", Spy)
    return made


@pytest.mark.parametrize(("mixup", "cutmix", "smoothing"), [(0.2, 0.0, 0.1), (0.0, 1.0, 0.0), (0.8, 0.5, 0.3)])
def test_mixup_and_cutmix_have_the_strengths_of_the_recipe(
    mixups: list[dict[str, Any]], mixup: float, cutmix: float, smoothing: float
) -> None:
    recipe = spec(mixup=mixup, cutmix=cutmix, label_smoothing=smoothing)
    train(network(), tensor_data(42), recipe, seed=0)
    assert mixups == [
        {
            "mixup_alpha": mixup,
            "cutmix_alpha": cutmix,
            "label_smoothing": smoothing,
            "num_classes": 3,
            "batches": 6,
        }
    ]


def test_without_them_nothing_is_mixed(mixups: list[dict[str, Any]]) -> None:
    train(network(), tensor_data(), spec(), seed=0, epochs=1)
    assert mixups == []


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_mix_as_they_say(mixups: list[dict[str, Any]], name: str) -> None:
    recipe = RECIPES[name].model_copy(update={"autocast": "fp32"})
    train(network(), tensor_data(), recipe, seed=0, epochs=1)
    expected = [(recipe.mixup, recipe.cutmix)] if recipe.mixup or recipe.cutmix else []
    assert [(made["mixup_alpha"], made["cutmix_alpha"]) for made in mixups] == expected
    assert bool(expected) == (name != "plain")
    assert (recipe.cutmix > 0) == (name in {"augreg", "deit"})


def test_cutmix_pastes_rectangles_and_mixup_blends() -> None:
    """By what the network sees: under cutmix every pixel is some image's own, under mixup most are blends."""
    levels = {}
    for name in ("mixup", "cutmix"):
        data = tensor_data(42)
        raw = data.raw(torch.arange(42)).clone()
        own = torch.unique(raw)
        seen: list[torch.Tensor] = []

        model = network()
        model.patch_embed.register_forward_pre_hook(
            lambda module, args, into=seen: into.extend(args) if module.training else None
        )
        train(model, data, spec(**{name: 1.0}), seed=0, epochs=1)
        pixels = torch.cat(seen).mul(data.std.view(1, -1, 1, 1)).add(data.mean.view(1, -1, 1, 1)).mul(255)
        nearest = (pixels.flatten()[:, None] - own[None, :]).abs().amin(1)
        levels[name] = float((nearest < 1e-2).float().mean())
    assert levels["cutmix"] > 0.999
    assert levels["mixup"] < 0.5


def trained_network(folder: Path, monkeypatch: pytest.MonkeyPatch, recipe: TrainSpec, **parts: Any) -> nn.Module:
    """The dense network of a whole trial, as it is when its training begins."""
    seen: list[nn.Module] = []

    def spy(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        seen.append(model)
        return train(model, *args, **kwargs)

    monkeypatch.setattr(trial_run, "train", spy)
    request = trial_factory.request(folder, trial_factory.candidate(**parts), train=recipe)
    outcome = run_trial(request, trial_factory.context())
    assert isinstance(outcome, TrialResult), outcome
    return seen[0]


def test_a_trial_builds_its_network_with_the_rates_of_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = spec(drop_path=0.3, dropout=0.15, pos_embed_std=0.4, epochs=1)
    model = trained_network(tmp_path, monkeypatch, recipe, architecture={"depth": 4, "width": 64, "heads": 4})
    blocks: Any = model.blocks
    rates = [[getattr(path, "drop_prob", 0.0) for path in (b.drop_path1, b.drop_path2)] for b in blocks]
    assert rates == [[pytest.approx(0.1 * i)] * 2 for i in range(4)]
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} == {0.15}
    assert sum(isinstance(m, nn.Dropout) for m in model.modules()) >= 2 * 4, "after attention and in the MLP"
    pos_embed: Any = model.pos_embed
    assert float(pos_embed.detach().std()) == pytest.approx(0.4, rel=0.25)


def test_the_default_recipe_drops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained_network(tmp_path, monkeypatch, spec(epochs=1))
    blocks: Any = model.blocks
    assert {getattr(b.drop_path1, "drop_prob", 0.0) for b in blocks} == {0.0}
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} <= {0.0}
