"""Bits shared out by sensitivity, against every way to share them out."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.compress.factory import candidate, images, network
from vitsearch.candidate import Candidate
from vitsearch.compress import assemble, build_reducers, calibrate, insert_quantizers, train_quantised
from vitsearch.compress.quantize import QuantizedProjection
from vitsearch.compress.quantize.mixed import least_total, share_out_bits
from vitsearch.compress.quantize.uniform import channel_delta, quantize
from vitsearch.cost import cost_of
from vitsearch.models import VisionTransformer

FIGURES = (8, 2, 6, 3, 4)
LAYERS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


def mixed(bits: tuple[int, ...] = FIGURES, **parts: Any) -> Candidate:
    precision = {"weight_bits": bits, "mixed": True, **parts.pop("precision", {})}
    return candidate({"depth": len(bits), **parts.pop("architecture", {})}, precision=precision, **parts)


def uneven(c: Candidate) -> VisionTransformer:
    model = network(c)
    with torch.no_grad():
        for block, scale in zip(model.blocks, (1, 0.1, 1.5, 9, 1), strict=False):
            block.mlp.fc2.weight.mul_(scale)
    model.set_reducers(build_reducers(c))
    return model


@torch.no_grad()
def test_the_bits_of_least_sensitivity() -> None:
    c, batches = mixed(), [images(5), images(3)]
    model = uneven(c)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    sensitivity = {}
    for block, bits in itertools.product((1, 2, 3), range(1, 9)):
        other = uneven(c)
        for name in LAYERS:
            weight = other.blocks[block].get_submodule(name).weight
            weight.copy_(quantize(weight, channel_delta(weight, bits), bits))
        difference = [(other(x) - model(x)).double().numpy() for x in batches]
        sensitivity[block, bits] = sum(np.square(d).sum() for d in difference) / 8
    ways = [way for way in itertools.product(range(1, 9), repeat=3) if sum(way) == 2 + 6 + 3]
    best = min(ways, key=lambda way: sum(sensitivity[block, bits] for block, bits in enumerate(way, start=1)))
    found = share_out_bits(model, c, batches)
    assert found.weight_bits == (8, *best, 4)
    assert best != (4, 4, 3), "the candidate's canonical form would be no test"
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("total", [4, 5, 13, 21, 31, 32])
def test_the_least_total_among_all(total: int) -> None:
    losses = np.random.default_rng(total).random((4, 8))
    ways = [bits for bits in itertools.product(range(1, 9), repeat=4) if sum(bits) == total]
    best = min(ways, key=lambda way: sum(losses[block, bits - 1] for block, bits in enumerate(way)))
    assert least_total(losses, total) == list(best)


@torch.no_grad()
def test_blocks_that_share_weights_get_the_same_bits() -> None:
    c = mixed((8, 8, 3, 3, 5, 5, 4, 4), architecture={"share_blocks": 2})
    assert c.equal_blocks == ((2, 4),)
    model = network(c)
    model.blocks[2].mlp.fc2.weight.mul_(9)
    bits = share_out_bits(model, c, [images(4)]).weight_bits
    assert isinstance(bits, tuple)
    assert (bits[:2], bits[6:]) == ((8, 8), (4, 4))
    assert bits[2] == bits[3] > bits[4] == bits[5]
    assert bits[2] + bits[4] == 8


@pytest.mark.parametrize("training", ["none", "ste"])
@torch.no_grad()
def test_bits_come_back_with_the_weights_and_cost_what_the_candidate_says(training: str) -> None:
    c = mixed(precision={"activation_bits": 8, "training": training}, tokens={"reducer": "tome", "r": 2})
    c = c.canonical()
    model = uneven(c)
    precision = share_out_bits(model, c, [images(8)])
    assert precision.weight_bits != c.precision.weight_bits
    insert_quantizers(model, precision).eval()
    calibrate(model, [images(8)])
    with torch.enable_grad():
        train_quantised(model, lambda *_: None, 1)
    state = model.state_dict()
    again = assemble(c, state)
    again.load_state_dict(state, strict=True)
    assert torch.equal(again(images()), model(images()))
    bits = [block.mlp.fc1.weight_bits for block in again.blocks]
    assert tuple(bits) == precision.weight_bits
    assert cost_of(c) == cost_of(c.model_copy(update={"precision": precision}))
    layers = [module for module in model.modules() if isinstance(module, QuantizedProjection)]
    counts = [one.layer.weight.numel() for one in layers]
    stored = sum(count * one.weight_bits for count, one in zip(counts, layers, strict=True))
    assert cost_of(c).weight_bits == stored / sum(counts)


@pytest.mark.parametrize(
    "architecture",
    [
        {"class_attention_blocks": 4, "pool": "token"},
        {"attention": "lsa"},
        {"pooling_branches": True},
        {"class_attention_blocks": 1, "layer_scale": True},
        {"share_blocks": 2},
    ],
    ids=str,
)
@torch.no_grad()
def test_every_architecture_shares_bits(architecture: dict[str, Any]) -> None:
    c = mixed((8, 8, 3, 3, 3, 3, 4, 4), architecture=architecture)
    model = network(c)
    model.blocks[2].mlp.fc2.weight.mul_(9)
    before = model(images(4))
    precision = share_out_bits(model, c, [images(4)])
    bits = precision.weight_bits_per_block(8)
    assert sum(bits) == 8 + 8 + 3 * 4 + 4 + 4
    assert len(set(bits[2:6])) > 1
    assert cost_of(c) == cost_of(c.model_copy(update={"precision": precision}))
    assert torch.equal(model(images(4)), before)
    insert_quantizers(model, precision)


def test_only_blocks_of_one_shape_share_bits() -> None:
    pruned = {"sparsity": {"method": "magnitude", "mlp_units": (48, 48, 30, 48, 30)}}
    c = mixed(**pruned)
    assert c.equal_blocks == ((1, 3), (2,))
    assert c.canonical().precision.weight_bits == (8, 3, 6, 2, 4)
    assert cost_of(c) == cost_of(c.canonical())


def test_the_same_mean_is_one_candidate() -> None:
    assert mixed((8, 2, 6, 3, 4)).hash == mixed((8, 3, 5, 3, 4)).hash == mixed((8, 4, 4, 3, 4)).hash
    assert mixed((8, 2, 6, 3, 4)).hash != mixed((4, 2, 6, 3, 8)).hash, "the first and the last keep theirs"
    assert mixed((4, 4, 4, 4)).canonical().precision.mixed is True, "also where all blocks have the same"
    assert mixed((8, 16, 3, 5, 4)).canonical().precision.weight_bits == (8, 16, 4, 4, 4)


@pytest.mark.parametrize("bits", [(4, 8, 8, 8, 4), (4, 1, 1, 1, 4), (8, 2), (4, 16, 32, 16, 4), (4, 16, 3, 16, 4)])
def test_where_no_bit_can_move_nothing_is_mixed(bits: tuple[int, ...]) -> None:
    plain = candidate({"depth": len(bits)}, precision={"weight_bits": bits})
    assert mixed(bits).hash == plain.hash


def test_codes_of_few_bits_stay_possible() -> None:
    c = mixed((4, 3, 3, 3, 4), precision={"quantizer": "ternary"}).canonical()
    assert c.precision.quantizer == "ternary", "a block may get two bits"
