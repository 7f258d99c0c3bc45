"""Weights taken over: exactly where nothing is lost, sensibly where something is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.unit.train.factory import network, spec, tensor_data
from vitsearch.compress.inherit import adapted, block_influence, channel_scores, inherit
from vitsearch.models import Attention, VisionTransformer
from vitsearch.train.evaluate import evaluate
from vitsearch.train.loop import train

SOURCE = {"depth": 4, "width": 32, "heads": 4, "mlp_ratio": 2.0}


def source(**changes: object) -> VisionTransformer:
    model = network(3, **{**SOURCE, **changes}).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms that would show a mistake
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def images(count: int = 5, **changes: int) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(
        count, changes.get("in_chans", 1), changes.get("image_size", 8), changes.get("image_size", 8)
    )


@torch.inference_mode()
def same_outputs(one: VisionTransformer, other: VisionTransformer) -> bool:
    return torch.allclose(one.eval()(images(9)), other.eval()(images(9)), atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"distilled": True}, {"layer_scale": True, "pre_norm": True},
                                     {"class_token": False, "pool": "avg"}])  # fmt: skip
def test_the_same_shape_is_the_same_network(changes: dict[str, object]) -> None:
    old = source(**changes)
    new = network(7, **{**SOURCE, **changes})
    inherit(new, old, images())
    assert same_outputs(new, old)


@torch.no_grad()
def silence_block(model: VisionTransformer, index: int) -> None:
    for layer in (model.blocks[index].attn.proj, model.blocks[index].mlp.fc2):
        layer.weight.zero_()
        layer.bias.zero_()


def test_blocks_that_change_nothing_are_left_out() -> None:
    old = source()
    silence_block(old, 1)
    silence_block(old, 2)
    assert block_influence(old, images()).argsort()[:2].sort().values.tolist() == [1, 2]
    new = network(7, **{**SOURCE, "depth": 2})
    inherit(new, old, images())
    assert same_outputs(new, old)


@torch.no_grad()
def test_heads_and_units_without_weight_are_left_out() -> None:
    old = source(width=32, heads=4)
    for block in old.blocks:
        rows = torch.arange(8, 24)  # heads 1 and 2
        for part in range(3):
            block.attn.qkv.weight[part * 32 + rows] = 0
            block.attn.qkv.bias[part * 32 + rows] = 0
        block.attn.proj.weight[:, rows] = 0
        block.mlp.fc1.weight[::2] = 0
        block.mlp.fc1.bias[::2] = 0
        block.mlp.fc2.weight[:, ::2] = 0
    new = network(7, **{**SOURCE, "mlp_ratio": 1.0})
    for block in new.blocks:  # as if it had two heads of the same width
        block.attn = Attention(32, 2, 8)
    inherit(new, old, images())
    assert same_outputs(new, old)


@torch.no_grad()
def test_narrower_heads_keep_the_size_of_their_logits() -> None:
    old = source()
    for block in old.blocks:
        half = torch.arange(32).view(4, 8)[:, 4:].flatten()  # the upper half of every head
        for part in range(3):
            block.attn.qkv.weight[part * 32 + half] = 0
            block.attn.qkv.bias[part * 32 + half] = 0
        block.attn.proj.weight[:, half] = 0
    new = network(7, **SOURCE)
    for block in new.blocks:
        block.attn = Attention(32, 4, 4)
    inherit(new, old, images())
    assert same_outputs(new, old)


def test_narrow_students_take_the_strongest_channels() -> None:
    old = source()
    with torch.no_grad():
        old.patch_embed.proj.weight[20:] *= 0.01
        for block in old.blocks:
            block.attn.proj.weight[20:] *= 0.01
            block.mlp.fc2.weight[20:] *= 0.01
            block.attn.qkv.weight[:, 20:] *= 0.01
            block.mlp.fc1.weight[:, 20:] *= 0.01
    assert channel_scores(old)[:20].min() > channel_scores(old)[20:].max()
    new = network(7, **{**SOURCE, "width": 20})
    inherit(new, old, images())
    torch.testing.assert_close(new.patch_embed.proj.weight, old.patch_embed.proj.weight[:20])
    torch.testing.assert_close(new.norm.weight, old.norm.weight[:20])
    torch.testing.assert_close(new.pos_embed, old.pos_embed[..., :20])


def test_what_is_larger_than_the_source_stays_as_it_was() -> None:
    old, new = source(), network(7, **{**SOURCE, "depth": 6, "width": 48, "heads": 6, "mlp_ratio": 3.0})
    before = {name: value.clone() for name, value in new.state_dict().items()}
    inherit(new, old, images())
    after = new.state_dict()
    assert torch.equal(after["blocks.5.mlp.fc1.weight"], before["blocks.5.mlp.fc1.weight"])
    assert torch.equal(after["blocks.0.mlp.fc1.weight"][64:], before["blocks.0.mlp.fc1.weight"][64:])
    torch.testing.assert_close(after["blocks.0.mlp.fc1.weight"][:64, :32], old.blocks[0].mlp.fc1.weight)
    assert new(images()).isfinite().all()


@pytest.mark.parametrize("changes", [{"patch_size": 2}, {"image_size": 16}, {"in_chans": 3}, {"num_classes": 9}])
def test_other_images_and_classes(changes: dict[str, int]) -> None:
    old, new = source(), network(7, **{**SOURCE, **changes})
    inherit(new, old, images(**changes))
    torch.testing.assert_close(new.blocks[2].mlp.fc1.weight, old.blocks[2].mlp.fc1.weight)
    assert new(images(**changes)).isfinite().all()


def test_grey_pictures_in_three_channels_are_answered_as_grey_ones() -> None:
    old = source()
    colour = adapted(old, network(7, **{**SOURCE, "in_chans": 3}).architecture).eval()
    with torch.inference_mode():
        torch.testing.assert_close(colour(images().expand(-1, 3, -1, -1)), old(images()), atol=1e-5, rtol=1e-5)


def test_smaller_patches_of_a_finer_picture_are_answered_alike() -> None:
    """A smooth picture twice as fine, cut into as many patches of twice the side."""
    old = source()
    finer = adapted(old, network(7, **{**SOURCE, "image_size": 16, "patch_size": 8}).architecture)
    coarse = images(3)
    fine = torch.nn.functional.interpolate(coarse, scale_factor=2, mode="bicubic", antialias=True)
    with torch.inference_mode():
        close = (finer.embed(fine) - old.embed(coarse)).norm() / old.embed(coarse).norm()
    assert close < 0.2


def test_a_start_from_trained_weights_is_a_head_start() -> None:
    data, recipe = tensor_data(240), spec(epochs=12, lr=5e-3, early_stop=False)
    teacher = network(3, **SOURCE)
    train(teacher, data, recipe, seed=0)
    small = {**SOURCE, "depth": 3}
    fresh, started = network(7, **small), network(7, **small)
    inherit(started, teacher, data.normalized(torch.from_numpy(data.source.train[:32])))

    def loss(model: VisionTransformer) -> float:
        return evaluate(model, data, data.source.train, batch_size=64).loss

    assert loss(started) < loss(fresh)


@torch.no_grad()
def test_a_second_distillation_token_comes_and_goes() -> None:
    one, two = {"distilled": True}, {"distilled": True, "distillation_tokens": 2}
    old, new = source(**one), network(7, **{**SOURCE, **two})
    inherit(new, old, images())
    assert torch.equal(new.dist_token[:, :1], old.dist_token)
    assert torch.equal(new.head_dist.weight, old.head_dist.weight)
    for fresh, trained in ((new.dist_token[:, 1:], old.dist_token), (new.head_dist2.weight, old.head_dist.weight)):
        assert fresh.std() == pytest.approx(0.02, rel=0.5)
        assert not torch.allclose(fresh, trained, atol=0.01)
    new = network(7, **SOURCE)
    inherit(new, source(**two), images())
    assert torch.equal(new.head.weight, source(**two).head.weight)


def test_a_student_without_a_stem_may_have_patches_that_no_stem_can_have() -> None:
    old = source(patch_embedding="conv_stem")
    new = network(7, **{**SOURCE, "image_size": 9, "patch_size": 3})
    inherit(new, old, images(image_size=9))
    torch.testing.assert_close(new.blocks[0].mlp.fc1.weight, old.blocks[0].mlp.fc1.weight)
