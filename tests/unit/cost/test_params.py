import pytest
from torch import nn

from tests.unit.candidate.factory import DEIT_S, micro
from tests.unit.cost.factory import random_candidates
from vitsearch.candidate import Candidate
from vitsearch.cost import cost_of, num_params, size_mb
from vitsearch.cost.params import activation_bits, layer_groups, weight_bits
from vitsearch.models import build_pruned

TINY = {"image_size": 4, "patch_size": 2, "depth": 2, "width": 4, "heads": 2, "mlp_ratio": 2.0, "num_classes": 2}


def stored_bits(candidate: Candidate) -> tuple[int, float]:
    """All bits of the built model and the mean over weights, by walking its modules."""
    depth = candidate.architecture.depth
    per_block = candidate.precision.weight_bits_per_block(depth)
    total, in_weights, weights = 0, 0, 0
    for name, parameter in (model := build_pruned(candidate)).named_parameters():
        module = model.get_submodule(name.rpartition(".")[0])
        if name.startswith("blocks."):
            bits = per_block[int(name.split(".")[1])]
        else:
            bits = per_block[-1] if name.startswith(("head", "norm.")) else per_block[0]
        if isinstance(module, nn.Linear | nn.Conv2d) and name.endswith("weight"):
            in_weights += parameter.numel() * bits
            weights += parameter.numel()
        else:
            bits = 16 if bits == 16 else 32
        total += parameter.numel() * bits
    return total, in_weights / weights


@pytest.mark.parametrize("preset", ["vit_micro_8", "vit_tiny_32", "vit_small_64"])
def test_size_and_bits_equal_a_walk_over_the_built_model(preset: str):
    candidates = random_candidates(preset, 10, sparse=True)
    for candidate in candidates:
        total, mean = stored_bits(candidate)
        assert size_mb(candidate) == pytest.approx(total / 8e6, rel=1e-12)
        assert weight_bits(candidate) == pytest.approx(mean, rel=1e-12)


def test_mixed_bits_equal_a_walk_over_the_built_model():
    for bits in ([4, 8, 16, 32], [16, 2, 3, 1], [32, 16, 16, 16]):
        for architecture in (
            {}, {"distilled": True}, {"distilled": True, "distillation_tokens": 2},
            {"layer_scale": True, "pre_norm": True},
            {"class_attention_blocks": 2, "patch_embedding": "conv_stem"}, {"pooling_branches": True},
        ):  # fmt: skip
            candidate = micro(architecture, precision={"weight_bits": bits})
            total, mean = stored_bits(candidate)
            assert size_mb(candidate) == pytest.approx(total / 8e6, rel=1e-12)
            assert weight_bits(candidate) == pytest.approx(mean, rel=1e-12)


def test_bits_of_shared_weights_equal_a_walk_over_the_built_model():
    candidate = micro({"share_blocks": 2, "layer_scale": True}, precision={"weight_bits": [4, 4, 16, 16]})
    total, mean = stored_bits(candidate)
    assert size_mb(candidate) == pytest.approx(total / 8e6, rel=1e-12)
    assert weight_bits(candidate) == pytest.approx(mean, rel=1e-12)


def test_mixed_bits_by_hand():
    candidate = micro(TINY, precision={"weight_bits": [4, 8], "activation_bits": [8, 32]})
    # weights: stem 16, a block 4 * 16 + 2 * 32 = 128, head 8
    assert weight_bits(candidate) == pytest.approx((16 * 4 + 128 * 4 + 128 * 8 + 8 * 8) / 280)
    # MACs without norms: stem 64, a block 640 + 200, head 8
    assert activation_bits(candidate) == pytest.approx((64 * 8 + 840 * 8 + 840 * 32 + 8 * 32) / 1752)
    # other parameters: stem 4 + 4 + 20, a block 12 + 4 + 8 + 4 + 16, head 2 + 8; together 126
    assert num_params(candidate) == 280 + 126
    assert size_mb(candidate) == pytest.approx((1664 + 126 * 32) / 8 / 1e6)
    assert cost_of(candidate).bits == pytest.approx((weight_bits(candidate) + activation_bits(candidate)) / 2)


@pytest.mark.parametrize(("w", "a", "bits"), [(8, 4, 6), (32, 32, 32), (8, 8, 8), (1, 32, 16.5), (16, 16, 16)])
def test_uniform_bits_are_the_mean_of_both(w: int, a: int, bits: float):
    assert cost_of(micro(precision={"weight_bits": w, "activation_bits": a})).bits == pytest.approx(bits)


def test_float_sizes():
    dense = micro()
    assert size_mb(dense) == num_params(dense) * 4 / 1e6
    assert size_mb(micro(precision={"weight_bits": 16})) == num_params(dense) * 2 / 1e6


def test_activation_bits_weigh_reduced_blocks_less():
    tokens = {"reducer": "tome", "r": 8, "blocks": [1]}
    mixed = {"activation_bits": [32, 4, 4, 4]}
    assert activation_bits(micro(tokens=tokens, precision=mixed)) > activation_bits(micro(precision=mixed))


def test_vit_b_16_itself():
    b16 = micro({**DEIT_S, "width": 768, "heads": 12})
    cost = cost_of(b16)
    assert round(cost.num_params / 1e6, 1) == 86.6
    assert round(cost.num_macs / 1e9, 2) == 17.58
    assert cost.size_mb == pytest.approx(346.27, abs=0.01)  # the survey's 330 MB is MiB
    assert cost.eer_pct() == pytest.approx(101.2, abs=0.05)


def test_shared_weights_count_and_are_stored_once():

    candidate = micro({**TINY, "share_blocks": 2}, precision={"weight_bits": 8})
    first, second = layer_groups(candidate)[1:3]
    assert (first.weights, first.others) == (4 * 12 + 4 * 4 + 2 * 32 + 2 * 2**2, 12 + 4 + 8 + 4 + 4 * 4)
    assert (second.weights, second.others) == (2 * 2**2, 4 * 4)  # its own mixing of heads and its own norms
    plain = micro(TINY, precision={"weight_bits": 8})
    assert size_mb(plain) - size_mb(candidate) == pytest.approx((8 * (128 - 2 * 8) + 32 * 28) / 8e6)
