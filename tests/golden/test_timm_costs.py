"""Closed-form parameters and MACs against every plain ViT that timm ships at 224 pixels, up to 100 M parameters.

Every vit_* and deit* name at 224 pixels stands in exactly one of the three tables below, so that a name cannot be
left out in silence; a new timm that adds names fails here until they are sorted in.
"""

from functools import cache

import pytest
import timm
import torch
from torch import nn

from vitsearch.candidate import Candidate
from vitsearch.cost import num_macs, num_params
from vitsearch.models import architecture_of_timm
from vitsearch.models.vit import LAYER_NORM_EPS
from vitsearch.profile.macs import count_macs

MAX_PARAMS = 100e6
SLOW_ABOVE_PARAMS = 30e6

PLAIN = {
    "deit_base_distilled_patch16_224", "deit_base_patch16_224", "deit_small_distilled_patch16_224",
    "deit_small_patch16_224", "deit_tiny_distilled_patch16_224", "deit_tiny_patch16_224", "vit_base_patch16_224",
    "vit_base_patch16_clip_224", "vit_base_patch16_gap_224", "vit_base_patch16_siglip_gap_224",
    "vit_base_patch32_224", "vit_base_patch32_clip_224", "vit_base_patch8_224", "vit_betwixt_patch32_clip_224",
    "vit_medium_patch16_clip_224", "vit_medium_patch32_clip_224", "vit_small_patch16_224",
    "vit_small_patch16_36x1_224", "vit_small_patch32_224", "vit_small_patch8_224", "vit_tiny_patch16_224",
    "vit_xsmall_patch16_clip_224",
}  # fmt: skip

# Up to 100 M parameters, but not plain: the reason is part of the error that refuses them.
NOT_PLAIN = {
    "pos_embed": {"deit3_base_patch16_224", "deit3_medium_patch16_224", "deit3_small_patch16_224"},  # CLS has none
    "qkv.bias": {"vit_base_patch16_224_miil"},
    "QuickGELU": {"vit_base_patch16_clip_quickgelu_224", "vit_base_patch32_clip_quickgelu_224"},
    "no pooling head": {"vit_base_patch16_siglip_224"},
    "HybridEmbed": {
        "vit_base_mci_224", "vit_base_r50_s16_224", "vit_small_r26_s32_224", "vit_small_resnet26d_224",
        "vit_small_resnet50d_s16_224", "vit_tiny_r_s16_p8_224",
    },
    "'EvaBlock'": {
        "vit_base_patch16_rope_224", "vit_base_patch16_rope_ape_224", "vit_base_patch16_rope_mixed_224",
        "vit_base_patch16_rope_mixed_ape_224", "vit_pe_core_base_patch16_224", "vit_small_patch16_rope_224",
        "vit_small_patch16_rope_ape_224", "vit_small_patch16_rope_mixed_224",
        "vit_small_patch16_rope_mixed_ape_224",
    },
    "'ResPostBlock'": {"vit_base_patch16_rpn_224"},
    "'ParallelScalingBlock'": {"vit_base_patch16_xp_224"},
    "'ParallelThingsBlock'": {"vit_small_patch16_18x2_224"},
    "'RelPosBlock'": {
        "vit_relpos_base_patch16_224", "vit_relpos_base_patch16_cls_224", "vit_relpos_base_patch16_clsgap_224",
        "vit_relpos_medium_patch16_224", "vit_relpos_medium_patch16_cls_224", "vit_relpos_small_patch16_224",
        "vit_srelpos_medium_patch16_224", "vit_srelpos_small_patch16_224",
    },
    "'ResPostRelPosBlock'": {
        "vit_relpos_base_patch16_rpn_224", "vit_relpos_medium_patch16_rpn_224", "vit_relpos_small_patch16_rpn_224",
    },
}  # fmt: skip

TOO_LARGE = {
    "deit3_huge_patch14_224", "deit3_large_patch16_224", "vit_base_patch16_18x2_224", "vit_base_r26_s32_224",
    "vit_base_resnet26d_224", "vit_base_resnet50d_224", "vit_giant_patch14_224", "vit_giant_patch14_clip_224",
    "vit_giant_patch16_gap_224", "vit_gigantic_patch14_224", "vit_gigantic_patch14_clip_224",
    "vit_gigantic_patch14_clip_quickgelu_224", "vit_huge_patch14_224", "vit_huge_patch14_clip_224",
    "vit_huge_patch14_clip_quickgelu_224", "vit_huge_patch14_gap_224", "vit_huge_patch14_xp_224",
    "vit_large_patch14_224", "vit_large_patch14_clip_224", "vit_large_patch14_clip_quickgelu_224",
    "vit_large_patch14_xp_224", "vit_large_patch16_224", "vit_large_patch16_rope_224",
    "vit_large_patch16_rope_ape_224", "vit_large_patch16_rope_mixed_224", "vit_large_patch16_rope_mixed_ape_224",
    "vit_large_patch32_224", "vit_large_r50_s32_224", "vit_so400m_patch14_siglip_224",
    "vit_so400m_patch14_siglip_gap_224",
}  # fmt: skip


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name)


def params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@cache
def candidate_of(name: str) -> tuple[Candidate, int]:
    """The candidate read off timm's network, and the network's parameters."""
    model = on_meta(name)
    return Candidate(architecture=architecture_of_timm(model)), params(model)


def test_every_name_at_224_is_sorted_in():
    names = [n for n in timm.list_models(["vit_*", "deit*"]) if timm.get_pretrained_cfg(n).input_size[-1] == 224]
    tables = [PLAIN, TOO_LARGE, *NOT_PLAIN.values()]
    assert set(names) == set().union(*tables)
    assert len(names) == sum(map(len, tables)), "a name stands twice"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TOO_LARGE))
def test_the_largest_are_indeed_too_large(name: str):
    assert params(on_meta(name)) > MAX_PARAMS


@pytest.mark.parametrize(("name", "reason"), [(n, why) for why, names in NOT_PLAIN.items() for n in sorted(names)])
def test_networks_that_are_not_plain_are_refused_with_the_reason(name: str, reason: str):
    model = on_meta(name)
    assert params(model) <= MAX_PARAMS
    with pytest.raises(ValueError, match="a plain VisionTransformer has") as caught:
        architecture_of_timm(model)
    assert reason in str(caught.value)


def test_the_docstring_of_plain_says_which_epsilon_differs():
    """Networks that count as plain compute what ours compute, but for this one constant, in CLIP's alone."""
    other = set()
    for name in PLAIN:
        found = {module.eps for module in on_meta(name).modules() if isinstance(module, nn.LayerNorm)}
        if found != {LAYER_NORM_EPS}:
            assert found == {1e-5}
            other.add(name)
    assert other == {name for name in PLAIN if "_clip_" in name}


@pytest.mark.parametrize("name", sorted(PLAIN))
def test_parameters_are_exact(name: str):
    candidate, expected = candidate_of(name)
    assert expected <= MAX_PARAMS
    assert num_params(candidate) == expected


def sized(name: str) -> object:
    # the names above 30 M: collection builds no network to find out
    large = name.startswith(("vit_base", "deit_base", "vit_medium", "vit_betwixt", "vit_small_patch16_36x1"))
    return pytest.param(name, marks=pytest.mark.slow if large else ())


@pytest.mark.parametrize("name", [sized(n) for n in sorted(PLAIN)])
def test_macs_are_exact(name: str):
    candidate, _ = candidate_of(name)
    with torch.no_grad():
        counted = count_macs(timm.create_model(name).eval(), torch.zeros(1, 3, 224, 224))
    assert num_macs(candidate) == counted


def test_only_large_networks_are_left_to_the_slow_run():
    slow = {p.values[0] for p in map(sized, PLAIN) if p.marks}  # type: ignore[attr-defined]
    assert slow == {name for name in PLAIN if candidate_of(name)[1] > SLOW_ABOVE_PARAMS}


@pytest.mark.parametrize(
    ("name", "macs_g"),
    [("deit_tiny_patch16_224", 1.26), ("deit_small_patch16_224", 4.61), ("deit_base_patch16_224", 17.58)],
)
def test_published_figures(name: str, macs_g: float):
    assert round(num_macs(candidate_of(name)[0]) / 1e9, 2) == macs_g


def test_the_three_distilled_models_are_among_them():
    distilled = {name for name in PLAIN if candidate_of(name)[0].architecture.distilled}
    assert distilled == {f"deit_{size}_distilled_patch16_224" for size in ("tiny", "small", "base")}
