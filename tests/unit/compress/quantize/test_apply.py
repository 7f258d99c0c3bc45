from typing import Any

import pytest
import torch
from torch import nn

from tests.unit.compress.factory import DEPTH, candidate, images, network
from vitsearch.candidate import Precision
from vitsearch.compress import assemble, build_reducers, calibrate, insert_quantizers, prune
from vitsearch.compress.quantize import (
    ActivationQuantizer,
    QuantizedAttention,
    QuantizedProjection,
)
from vitsearch.compress.quantize.calibration.local import covering_range, mse_range, percentile_range
from vitsearch.compress.quantize.uniform import Uniform
from vitsearch.cost import cost_of
from vitsearch.models import VisionTransformer

RULES = {"minmax": covering_range, "percentile": percentile_range, "mse": mse_range}
PARTS: dict[str, dict[str, Any]] = {
    "W8A8": {"precision": {"weight_bits": 8, "activation_bits": 8}},
    "W32A6": {"precision": {"activation_bits": 6, "calibration": "percentile"}},
    "W4A32": {"precision": {"weight_bits": 4}},
    "W16A16": {"precision": {"weight_bits": 16, "activation_bits": 16}},
    "mixed": {"precision": {"weight_bits": (8, 32, 3), "activation_bits": (32, 4, 16), "calibration": "mse"}},
    "with tome, pruned": {
        "precision": {"weight_bits": 8, "activation_bits": (8, 32, 6)},
        "tokens": {"reducer": "tome", "r": 3},
        "sparsity": {"method": "magnitude", "mlp_units": (48, 30, 7), "heads": (4, 1, 3)},
    },
}


def compressed(architecture: dict[str, Any] | None = None, **parts: Any) -> VisionTransformer:
    c = candidate(architecture, **parts)
    model = network(c)
    if c.sparsity.method != "none":
        model = prune(model, c)
    model.set_reducers(build_reducers(c))
    insert_quantizers(model, c.precision).eval()
    calibrate(model, [images(4), images(3)])
    return model


@torch.no_grad()
def test_32_bits_are_the_identity_bit_for_bit():
    dense = network(candidate())
    expected = dense(images())
    names = [type(m).__name__ for m in dense.modules()]
    assert insert_quantizers(dense, Precision(weight_bits=32, activation_bits=32)) is dense
    assert [type(m).__name__ for m in dense.modules()] == names
    assert torch.equal(dense(images()), expected)
    per_block = insert_quantizers(dense, Precision(weight_bits=(32,) * DEPTH, activation_bits=(32,) * DEPTH))
    calibrate(per_block, [images()])
    assert torch.equal(per_block(images()), expected)


def bits_of(model: VisionTransformer) -> dict[str, tuple[int, int]]:
    """(distinct weight values allowed, activation bits) of each projection, by name."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, QuantizedProjection):
            levels = max(len(row.unique()) for row in module.layer.weight.flatten(1))
            found[name] = (levels, module.input_quantizer.bits)
    return found


def test_bits_land_on_their_layers():
    """The stem goes with the first block, the heads with the last."""
    precision = {"weight_bits": (2, 32, 3), "activation_bits": (4, 32, 6)}
    model = compressed({"distilled": True}, precision=precision)
    found = bits_of(model)
    block = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]
    first, last = ["patch_embed.proj", *(f"blocks.0.{n}" for n in block)], [*(f"blocks.2.{n}" for n in block)]
    assert set(found) == {*first, *last, "head", "head_dist"}
    for name in first:
        assert found[name][1] == 4
        assert found[name][0] <= 3, name  # -1, 0, 1: minmax never reaches -2
    for name in [*last, "head", "head_dist"]:
        assert found[name][1] == 6
        assert 3 < found[name][0] <= 7, name
    assert isinstance(model.blocks[0].attn, QuantizedAttention)
    assert not isinstance(model.blocks[1].attn, QuantizedAttention)
    assert {q.bits for q in model.blocks[0].attn.quantizers.values()} == {4}
    assert {q.bits for q in model.blocks[2].attn.quantizers.values()} == {6}
    assert set(model.blocks[2].attn.quantizers) == {"q", "k", "v", "softmax"}


def test_only_activations():
    model = compressed(precision={"activation_bits": 8})
    assert torch.equal(model.blocks[0].mlp.fc1.layer.weight, network(candidate()).blocks[0].mlp.fc1.weight)


@torch.no_grad()
def test_every_number_that_is_counted_at_16_bits_is_a_float16():
    model = compressed({"pre_norm": True, "layer_scale": True}, precision={"weight_bits": (16, 16, 32)})
    for name, value in model.named_parameters():
        whole = name.startswith(("blocks.2", "norm.", "head"))
        assert torch.equal(value, value.half().float()) != whole, name
    size = cost_of(candidate(precision={"weight_bits": 16})).size_mb
    assert size == pytest.approx(cost_of(candidate()).size_mb / 2)


@torch.no_grad()
def test_16_bits_round_activations_to_float16():
    quantizer = ActivationQuantizer(16, Uniform())
    x = torch.randn(100) * 300
    assert torch.equal(quantizer(x), x.half().float())
    assert not torch.equal(quantizer(x), x)
    assert torch.equal(ActivationQuantizer(32, Uniform())(x), x)


@pytest.mark.parametrize("calibration", ["minmax", "percentile", "mse"])
@torch.no_grad()
def test_calibration_sees_what_float32_arithmetic_would_pass(calibration: str):
    model = network(candidate())
    seen: list[torch.Tensor] = []
    model.blocks[1].mlp.fc1.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    batches = [images(4), images(3)]
    for batch in batches:
        model(batch)
    insert_quantizers(model, Precision(activation_bits=4, calibration=calibration)).eval()
    calibrate(model, batches)
    delta = model.blocks[1].mlp.fc1.input_quantizer.delta.item()
    expected = RULES[calibration](torch.cat([x.flatten() for x in seen]), 4, Uniform()).item()
    assert delta == pytest.approx(expected, rel=1e-6)


@torch.no_grad()
def test_the_range_of_a_large_activation_is_not_lost_to_sampling(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vitsearch.compress.quantize.layers.OBSERVED_VALUES", 10)
    quantizer = ActivationQuantizer(8, Uniform())
    quantizer.observe()
    x = torch.zeros(10_000)
    x[4321] = -254.0
    assert torch.equal(quantizer(x), x), "observing changes nothing"
    quantizer.settle(covering_range(quantizer.observed(), 8, Uniform()))
    assert quantizer.delta.item() == pytest.approx(2.0)
    assert not quantizer.is_observing


@torch.no_grad()
def test_calibrating_again_forgets_the_first_time():
    model = compressed(precision={"activation_bits": 8})
    first = model.head.input_quantizer.delta.item()
    calibrate(model, [images(2) * 0.01])
    second = model.head.input_quantizer.delta.item()
    calibrate(model, [images(4), images(3)])
    assert model.head.input_quantizer.delta.item() == pytest.approx(first)
    assert second != pytest.approx(first)


@torch.no_grad()
def test_few_bits_change_the_outputs_and_many_do_so_less():
    expected = network(candidate())(images())
    errors = []
    for bits in (4, 6, 8):
        model = compressed(precision={"weight_bits": bits, "activation_bits": bits})
        errors.append((model(images()) - expected).abs().mean().item())
    assert errors[0] > 2 * errors[1] > 4 * errors[2] > 0


@pytest.mark.parametrize("parts", PARTS)
@torch.no_grad()
def test_saved_weights_come_back_through_assemble(parts: str):
    trained = compressed(**PARTS[parts])
    again = assemble(candidate(**PARTS[parts]))
    assert not again.training
    again.load_state_dict(trained.state_dict(), strict=True)
    assert torch.equal(again(images()), trained(images()))


def test_weights_are_leaves_that_still_learn():
    model = compressed(precision={"weight_bits": 8})
    nn.functional.cross_entropy(model(images()), torch.tensor([0, 1, 2, 3])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
