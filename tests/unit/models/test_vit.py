"""The network against timm's, weight for weight."""

from typing import Any

import pytest
import timm
import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer as TimmVit

from vitsearch.candidate import Candidate, Sparsity
from vitsearch.models import architecture_of_timm, build_dense, build_pruned, set_fused_attention

SMALL: dict[str, Any] = {
    "img_size": 16, "patch_size": 4, "in_chans": 3, "num_classes": 7, "embed_dim": 24, "depth": 3, "num_heads": 3,
}  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "pre_norm without patch bias": {"pre_norm": True},
    "layer scale": {"init_values": 0.5},
    "average of patches beside CLS": {"global_pool": "avg", "fc_norm": False},
    "average without CLS": {"class_token": False, "global_pool": "avg", "fc_norm": False},
    "wide": {"mlp_ratio": 2.7, "num_heads": 4, "embed_dim": 32},
    "no head": {"num_classes": 0},
    "one channel": {"in_chans": 1, "patch_size": 8},
}


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    """Every parameter off its neutral value, so that a mix-up shows."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def assert_same_function(theirs: torch.nn.Module, images_BCHW: torch.Tensor) -> None:
    ours = build_dense(architecture_of_timm(theirs)).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    with torch.no_grad():
        expected, found = theirs(images_BCHW), ours(images_BCHW)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_equal_to_timm_in_small(name: str):
    settings = {**SMALL, **VARIANTS[name]}
    images = torch.randn(2, settings["in_chans"], 16, 16, generator=torch.Generator().manual_seed(1))
    assert_same_function(randomised(TimmVit(**settings)), images)


def test_equal_to_timm_distilled_in_small():
    model = VisionTransformerDistilled(**SMALL)
    assert architecture_of_timm(model).distilled
    assert_same_function(randomised(model), torch.randn(2, 3, 16, 16))


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_equal_to_timm_deit(name: str):
    torch.manual_seed(0)
    assert_same_function(timm.create_model(name).eval(), torch.randn(1, 3, 224, 224))


def small(**changes: Any) -> Candidate:
    architecture = {
        "image_size": 8, "in_chans": 1, "num_classes": 5, "patch_size": 2, "depth": 3, "width": 24, "heads": 4,
    }  # fmt: skip
    return Candidate.model_validate({"architecture": {**architecture, **changes}})


def test_fused_and_plain_attention_agree():
    model = randomised(build_dense(small().architecture))
    images = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        fused = model(images)
        set_fused_attention(model, fused=False)
        plain = model(images)
    torch.testing.assert_close(fused, plain, atol=1e-5, rtol=1e-5)


def test_a_model_with_two_distillation_tokens_answers_with_the_mean_of_three_heads():
    a = small(distilled=True, distillation_tokens=2).architecture
    assert (a.num_prefix_tokens, a.num_tokens) == (3, a.num_patches + 3)
    model = randomised(build_dense(a))
    images = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        x_BND = model.forward_features(images)
        heads = [getattr(model, name)(x_BND[:, place]) for place, name in enumerate(model.head_names)]
        torch.testing.assert_close(model(images), (heads[0] + heads[1] + heads[2]) / 3)
        torch.testing.assert_close(model.logits_of(x_BND), model(images))
        assert not torch.allclose(heads[1], heads[2])


def test_a_distilled_model_answers_with_the_mean_of_both_heads():
    model = randomised(build_dense(small(distilled=True).architecture))
    images = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        x_BND = model.forward_features(images)
        both = (model.head(x_BND[:, 0]) + model.head_dist(x_BND[:, 1])) / 2
        torch.testing.assert_close(model(images), both)


def test_pruned_shapes():
    candidate = small().model_copy(
        update={"sparsity": Sparsity(method="magnitude", mlp_units=(96, 50, 1), heads=(1, 4, 2))}
    )
    model = build_pruned(candidate)
    assert [b.attn.qkv.out_features for b in model.blocks] == [3 * 6 * 1, 3 * 6 * 4, 3 * 6 * 2]
    assert [b.attn.proj.in_features for b in model.blocks] == [6, 24, 12]
    assert [b.mlp.fc1.out_features for b in model.blocks] == [96, 50, 1]
    assert {b.attn.scale for b in model.blocks} == {6**-0.5}
    assert model(torch.zeros(1, 1, 8, 8)).shape == (1, 5)


def test_reducers_are_called_between_attention_and_mlp():
    class KeepFirstThree:
        def __call__(self, x_BND, attention, *_):
            assert attention.q_BHNK.shape[2] == x_BND.shape[1] == 17
            return x_BND[:, :3], torch.full(x_BND.shape[:2], 1.0)[:, :3]

    model = build_dense(small().architecture).eval()
    model.set_reducers({2: KeepFirstThree()})
    assert [b.reducer is not None for b in model.blocks] == [False, True, False]
    assert model.forward_features(torch.zeros(1, 1, 8, 8)).shape == (1, 3, 24)
    model.set_reducers({})
    assert model.forward_features(torch.zeros(1, 1, 8, 8)).shape == (1, 17, 24)


def test_sizes_of_one_change_nothing():
    class Ones:
        def __call__(self, x_BND, *_):
            return x_BND, torch.ones(x_BND.shape[:2])

    model = randomised(build_dense(small().architecture))
    images = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        plain = model(images)
        model.set_reducers({1: Ones()})
        torch.testing.assert_close(model(images), plain, atol=1e-5, rtol=1e-5)


def test_drop_path_rises_to_the_rate_and_rests_in_evaluation():
    model = build_dense(small().architecture, drop_path=0.2, dropout=0.1)
    assert [getattr(b.drop_path1, "drop_prob", 0.0) for b in model.blocks] == pytest.approx([0, 0.1, 0.2])
    images = torch.randn(1, 1, 8, 8)
    model.eval()
    assert torch.equal(model(images), model(images))
    model.train()
    assert not torch.equal(model(images), model(images))


def test_the_seed_decides_the_weights():
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in build_dense(small().architecture).parameters()])

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))
