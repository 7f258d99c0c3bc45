from typing import Any

import pytest
import torch
from timm.models.vision_transformer import ParallelScalingBlock
from timm.models.vision_transformer import VisionTransformer as TimmVit
from torch import nn

from vitsearch.candidate import Architecture
from vitsearch.models import architecture_of_timm, build_dense

SMALL: dict[str, Any] = {
    "img_size": 16, "patch_size": 4, "num_classes": 7, "embed_dim": 24, "depth": 2, "num_heads": 3,
}  # fmt: skip


def test_a_timm_network_is_read_back():
    model = TimmVit(**SMALL, mlp_ratio=3.0, pre_norm=True, init_values=0.1)
    assert architecture_of_timm(model) == Architecture(
        image_size=16, in_chans=3, num_classes=7, patch_size=4, depth=2, width=24, heads=3, mlp_ratio=3.0,
        pre_norm=True, patch_bias=False, layer_scale=True,
    )  # fmt: skip


@pytest.mark.parametrize("mlp_ratio", [2.3, 1 / 3, 0.7, 3.7362])
def test_hidden_units_survive(mlp_ratio: float):
    model = TimmVit(**{**SMALL, "embed_dim": 100, "num_heads": 4}, mlp_ratio=mlp_ratio)
    assert architecture_of_timm(model).mlp_units == model.blocks[0].mlp.fc1.out_features


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reg_tokens": 2}, "no registers"),
        ({"global_pool": "map"}, "no pooling head"),
        ({"block_fn": ParallelScalingBlock}, "ParallelScalingBlock"),
        ({"global_pool": "avg"}, "one final LayerNorm"),  # timm then normalises after pooling
        ({"img_size": (16, 8)}, "square images"),
        ({"act_layer": nn.ReLU}, "has GELU, but got ReLU"),
        ({"qkv_bias": False}, "these differ: .*qkv.bias"),
        ({"qk_norm": True}, "these differ: .*_norm"),
        ({"no_embed_class": True}, r"these differ: \['pos_embed'\]"),
        ({"norm_layer": nn.Identity}, "one final LayerNorm"),
    ],
    ids=str,
)
def test_networks_that_are_not_plain_are_refused(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        architecture_of_timm(TimmVit(**{**SMALL, **changes}))


def test_reading_a_network_draws_no_random_numbers():
    model = TimmVit(**SMALL)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    architecture_of_timm(model)
    assert torch.equal(torch.rand(3), expected)


def test_names_equal_timms():
    model = TimmVit(**SMALL)
    ours = build_dense(architecture_of_timm(model))
    assert list(ours.state_dict()) == list(model.state_dict())
