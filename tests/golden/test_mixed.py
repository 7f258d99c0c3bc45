"""Bits shared out by sensitivity, against every permutation."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.compress.factory import candidate, images, network
from vitsearch.candidate import Candidate
from vitsearch.compress import assemble, build_reducers, calibrate, insert_quantizers, train_quantised
from vitsearch.compress.quantize import QuantizedProjection
from vitsearch.compress.quantize.mixed import share_out_bits
from vitsearch.compress.quantize.uniform import channel_delta, quantize
from vitsearch.cost import cost_of
from vitsearch.models import VisionTransformer

FIGURES = (8, 2, 6, 3, 4)
LAYERS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


def mixed(bits: tuple[int, ...] = FIGURES, **parts: Any) -> Candidate:
    precision = {"weight_bits": bits, "mixed": True, **parts.pop("precision", {})}
    return candidate({"depth": len(bits)}, precision=precision, **parts)


def uneven(c: Candidate) -> VisionTransformer:
    model = network(c)
    with torch.no_grad():
        for block, scale in zip(model.blocks, (1, 0.3, 1.5, 3, 1), strict=False):
            block.mlp.fc2.weight.mul_(scale)
    model.set_reducers(build_reducers(c))
    return model


@torch.no_grad()
def test_the_permutation_of_least_sensitivity():
    c, batches = mixed(), [images(5), images(3)]
    model = uneven(c)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    sensitivity = {}
    for block, bits in itertools.product((1, 2, 3), (2, 6, 3)):
        other = uneven(c)
        for name in LAYERS:
            weight = other.blocks[block].get_submodule(name).weight
            weight.copy_(quantize(weight, channel_delta(weight, bits), bits))
        difference = [(other(x) - model(x)).double().numpy() for x in batches]
        sensitivity[block, bits] = sum(np.square(d).sum() for d in difference) / 8
    best = min(
        itertools.permutations((2, 6, 3)),
        key=lambda order: sum(sensitivity[block, bits] for block, bits in zip((1, 2, 3), order, strict=True)),
    )
    found = share_out_bits(model, c, batches)
    assert found.weight_bits == (8, *best, 4)
    assert best != (6, 3, 2), "the order of the candidate's canonical form would be no test"
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("training", ["none", "ste"])
@torch.no_grad()
def test_bits_come_back_with_the_weights_and_cost_what_the_candidate_says(training: str):
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


def test_only_blocks_of_one_shape_exchange_figures():
    pruned = {"sparsity": {"method": "magnitude", "mlp_units": (48, 48, 30, 48, 30)}}
    c = mixed(**pruned)
    assert c.equal_blocks == ((1, 3), (2,))
    assert c.canonical().precision.weight_bits == (8, 3, 6, 2, 4)
    assert cost_of(c) == cost_of(c.canonical())


def test_orders_of_the_same_figures_are_one_candidate():
    assert mixed((8, 2, 6, 3, 4)).hash == mixed((8, 6, 3, 2, 4)).hash
    assert mixed((8, 2, 6, 3, 4)).hash != mixed((4, 2, 6, 3, 8)).hash
    assert mixed((8, 3, 3, 3, 4)).hash == candidate({"depth": 5}, precision={"weight_bits": (8, 3, 3, 3, 4)}).hash
    assert mixed((8, 2)).canonical().precision.mixed is False
