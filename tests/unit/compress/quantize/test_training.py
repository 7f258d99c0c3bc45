from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.unit.compress.factory import candidate, images, network
from vitsearch.candidate import Candidate
from vitsearch.compress import assemble, build_reducers, calibrate, insert_quantizers, train_quantised
from vitsearch.compress.quantize import QUANTIZERS, QuantizedProjection
from vitsearch.cost import cost_of
from vitsearch.models import VisionTransformer
from vitsearch.train.losses import LossTerm

PARTS: dict[str, dict[str, Any]] = {name: {"quantizer": name} for name in QUANTIZERS}
PARTS |= {"noisy": {"noisy": True}, "mixed": {"weight_bits": (8, 32, 16), "activation_bits": (16, 4, 32)}}


def precision(training: str = "ste", **changes: Any) -> dict[str, Any]:
    return {"weight_bits": 3, "activation_bits": 4, "training": training, **changes}


class Steps:
    """A trainer of a few steps towards the answers of the unquantised network."""

    def __init__(self, expected: Tensor, steps: int = 20) -> None:
        self.expected, self.steps = expected, steps
        self.errors: list[float] = []

    def __call__(self, model: VisionTransformer, epochs: int, terms: tuple[LossTerm, ...] = ()) -> None:
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
        model.train()
        for _ in range(self.steps * epochs):
            error = (model(images(16)) - self.expected).square().mean()
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
            self.errors.append(error.item())


def calibrated(c: Candidate) -> VisionTransformer:
    model = network(c)
    model.set_reducers(build_reducers(c))
    insert_quantizers(model, c.precision).eval()
    calibrate(model, [images(16)])
    return model


def trained(c: Candidate) -> tuple[VisionTransformer, Steps]:
    exact = network(c)
    exact.set_reducers(build_reducers(c))
    with torch.no_grad():
        steps = Steps(exact(images(16)))
    model = calibrated(c)
    train_quantised(model, steps, 1)
    return model, steps


@pytest.mark.parametrize("training", ["ste", "lsq"])
@pytest.mark.parametrize("name", PARTS)
def test_it_learns_and_comes_back_through_assemble(name: str, training: str) -> None:
    c = candidate(precision=precision(training, **PARTS[name]), tokens={"reducer": "tome", "r": 2})
    before = calibrated(c)
    model, steps = trained(c)
    assert steps.errors[-1] < 0.8 * steps.errors[0]
    assert not model.training
    again = assemble(c)
    again.load_state_dict(model.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(again(images()), model(images()))
        after, first = ((m(images(16)) - steps.expected).square().mean() for m in (model, before))
    assert after < first, "what is stored is what was trained"
    assert sum(p.numel() for p in model.parameters()) == cost_of(c).num_params
    for module in model.modules():
        if isinstance(module, QuantizedProjection) and module.weight_bits < 16:
            assert all(len(row.unique()) <= 2**module.weight_bits for row in module.layer.weight.flatten(1))


def test_lsq_moves_steps_and_ste_does_not() -> None:
    for training in ("ste", "lsq"):
        c = candidate(precision=precision(training))
        before, (after, _) = calibrated(c).state_dict(), trained(c)[0:2]
        deltas = [name for name in before if name.endswith(".delta")]
        assert len(deltas) > 20
        same = [torch.equal(before[name], after.state_dict()[name]) for name in deltas]
        assert all(same) if training == "ste" else not any(same)
        assert all(after.state_dict()[name].min() > 0 for name in deltas)


@pytest.mark.parametrize(
    ("quantizer", "bits"), [*((name, 3) for name in QUANTIZERS), ("binary", 1), ("uniform", 32)]
)
@pytest.mark.parametrize("training", ["ste", "lsq"])
def test_pruned_weights_stay_zero(training: str, quantizer: str, bits: int) -> None:
    """2:4: two of every four weights along the input."""
    c = candidate(precision=precision(training, quantizer=quantizer, weight_bits=bits))
    model = network(c)
    masks = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and name.startswith("blocks"):
            groups = layer.weight.detach().reshape(-1, 4)
            mask = torch.zeros_like(groups).scatter_(1, groups.abs().topk(2, dim=1).indices, 1.0)
            masks[name] = mask.view_as(layer.weight)
            layer.weight.data *= masks[name]
            layer.register_buffer("weight_mask", masks[name])
    insert_quantizers(model, c.precision).eval()
    calibrate(model, [images(16)])
    train_quantised(model, Steps(torch.zeros(16, 5), steps=3), 1)
    assert len(masks) == 12
    for name, mask in masks.items():
        weight = model.get_submodule(name).layer.weight
        assert (weight[mask == 0] == 0).all(), name
        assert (weight[mask == 1] != 0).any(), name


def test_no_epochs_or_no_training_leave_everything() -> None:
    for training, epochs in (("none", 1), ("ste", 0)):
        c = candidate(precision=precision(training))
        model, expected = calibrated(c), calibrated(c).state_dict()
        train_quantised(model, Steps(torch.zeros(16, 5)), epochs)
        assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_an_error_in_training_leaves_no_wrappers_behind() -> None:
    model = calibrated(candidate(precision=precision("lsq")))
    names = set(model.state_dict())

    def fails(model: VisionTransformer, epochs: int, terms: tuple[LossTerm, ...] = ()) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        train_quantised(model, fails, 1)
    assert set(model.state_dict()) == names


def test_training_is_part_of_a_candidate_only_where_it_matters() -> None:
    assert candidate(precision={"training": "ste"}).hash == candidate().hash
    assert (
        candidate(precision={"training": "lsq", "weight_bits": 16}).hash
        == candidate(precision={"weight_bits": 16}).hash
    )
    hashes = {candidate(precision={"weight_bits": 4, "training": t}).hash for t in ("none", "ste", "lsq")}
    assert len(hashes) == 3
    assert "training" not in candidate(precision={"weight_bits": 4}).canonical_json()
