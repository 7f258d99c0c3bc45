"""The convolutional stem against its definition, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.unit.train.factory import architecture, network, spec, tensor_data
from vitsearch.candidate import Candidate
from vitsearch.cost import cost_of
from vitsearch.models import ConvStem, build_dense
from vitsearch.models.conv_stem import fold_batch_norms, learn_batch_norms
from vitsearch.profile.macs import count_macs
from vitsearch.train.loop import train


def stem(chans: int, patch: int, side: int, width: int) -> ConvStem:
    torch.manual_seed(0)
    a = architecture(
        patch_embedding="conv_stem", in_chans=chans, patch_size=patch, image_size=side, width=width, heads=1
    )
    layer = ConvStem(a, width)
    learn_batch_norms(layer)
    with torch.no_grad():
        for norm in layer.norms:
            for value, low, high in (
                (norm.weight, 0.5, 1.5), (norm.bias, -0.5, 0.5), (norm.running_mean, -0.3, 0.3),
                (norm.running_var, 0.2, 2.0),
            ):  # fmt: skip
                value.uniform_(low, high)
    return layer.double().eval()


def convolved(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """3 x 3, every second row and column, zeros outside."""
    chans, height, width = x.shape
    out = np.zeros((len(weight), height // 2, width // 2))
    for o in range(len(weight)):
        for row in range(height // 2):
            for column in range(width // 2):
                total = bias[o]
                for c in range(chans):
                    for dy in range(3):
                        for dx in range(3):
                            y, z = 2 * row + dy - 1, 2 * column + dx - 1
                            if 0 <= y < height and 0 <= z < width:
                                total += weight[o, c, dy, dx] * x[c, y, z]
                out[o, row, column] = total
    return out


def reference(images: np.ndarray, layer: ConvStem) -> np.ndarray:
    found = []
    for image in images:
        x = image
        for conv, norm in zip(layer.convs, layer.norms, strict=True):
            x = convolved(x, conv.weight.detach().numpy(), conv.bias.detach().numpy())
            mean, var, gamma, beta = (
                v.detach().numpy()[:, None, None]
                for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
            )
            x = np.maximum((x - mean) / np.sqrt(var + norm.eps) * gamma + beta, 0)
        weight, bias = layer.proj.weight.detach().numpy()[:, :, 0, 0], layer.proj.bias.detach().numpy()
        found.append([weight @ x[:, y, z] + bias for y in range(x.shape[1]) for z in range(x.shape[2])])
    return np.array(found)


@pytest.mark.parametrize(("chans", "patch", "side", "width"), [(1, 2, 6, 5), (3, 4, 12, 8), (2, 8, 16, 12)])
def test_conv_stem(chans: int, patch: int, side: int, width: int) -> None:
    layer = stem(chans, patch, side, width)
    images = torch.randn(3, chans, side, side, dtype=torch.float64)
    with torch.no_grad():
        expected = reference(images.numpy(), layer)
        np.testing.assert_allclose(layer(images).numpy(), expected, atol=1e-12)
        fold_batch_norms(layer)
        assert set(dict(layer.named_buffers())) == set()
        np.testing.assert_allclose(layer(images).numpy(), expected, atol=1e-10)


def test_channels_double_up_to_the_width() -> None:
    a = architecture(image_size=224, patch_size=16, width=192, heads=3, patch_embedding="conv_stem")
    assert a.stem_channels == (24, 48, 96, 192), "ViT-C of 1 GF (Xiao et al.)"
    assert architecture(patch_size=2, patch_embedding="conv_stem").stem_channels == (16,)
    assert architecture().stem_channels == ()


def test_the_published_stem_costs_as_much_as_a_block() -> None:
    """Xiao et al.: the stem of ViT-C takes about the MACs of the one block that it replaces."""
    deit_ti = {"image_size": 224, "patch_size": 16, "width": 192, "heads": 3, "depth": 12, "mlp_ratio": 4.0,
               "in_chans": 3, "num_classes": 1000}  # fmt: skip
    plain = Candidate(architecture=architecture(**deit_ti))
    early = Candidate(architecture=architecture(**{**deit_ti, "depth": 11, "patch_embedding": "conv_stem"}))
    assert cost_of(early).num_macs == pytest.approx(cost_of(plain).num_macs, rel=0.05)


@pytest.mark.parametrize("patch", [2, 4])
def test_its_cost_is_exact(patch: int) -> None:
    a = architecture(patch_embedding="conv_stem", in_chans=3, patch_size=patch, patch_bias=False)
    model, cost = build_dense(a).eval(), cost_of(Candidate(architecture=a))
    assert cost.num_params == sum(p.numel() for p in model.parameters())
    assert cost.num_macs == count_macs(model, torch.zeros(1, 3, 8, 8))


def test_batch_norms_learn_and_leave_no_trace() -> None:
    model = network(0, patch_embedding="conv_stem")
    names = set(model.state_dict())
    learn_batch_norms(model)
    train(model, tensor_data(), spec(lr=1e-2), seed=0)
    assert all(norm.running_mean.abs().sum() > 0 for norm in model.patch_embed.norms)
    images = torch.randn(4, 1, 8, 8)
    with torch.inference_mode():
        before = model.eval()(images)
        fold_batch_norms(model)
        torch.testing.assert_close(model(images), before, atol=1e-5, rtol=1e-4)
    assert set(model.state_dict()) == names
