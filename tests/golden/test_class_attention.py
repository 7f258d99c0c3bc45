"""Class attention against its equations, written out in numpy; and CaiT's own layer in timm."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.train.factory import architecture
from vitsearch.candidate import Candidate
from vitsearch.compress import build_reducers
from vitsearch.models import VisionTransformer, build_dense
from vitsearch.models.class_attention import ClassAttentionBlock


def network(**changes: object) -> VisionTransformer:
    torch.manual_seed(0)
    settings = {"depth": 4, "width": 12, "heads": 3, "patch_size": 2, "image_size": 6, "class_attention_blocks": 2,
                "layer_scale": True}  # fmt: skip
    model = build_dense(architecture(**{**settings, **changes})).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def array(value: torch.Tensor) -> np.ndarray:
    return value.detach().numpy()


def linear(x: np.ndarray, layer: nn.Module) -> np.ndarray:
    return x @ array(layer.weight).T + array(layer.bias)


def normed(x: np.ndarray, norm: nn.Module) -> np.ndarray:
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + norm.eps) * array(norm.weight) + array(norm.bias)


def softmax(row: np.ndarray) -> np.ndarray:
    e = np.exp(row - row.max())
    return e / e.sum()


def mixed(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int, *, hides_self: bool) -> np.ndarray:
    """Attention of one image, query by query; q (M, D), k and v (N, D); query i is token i."""
    width = q.shape[1] // heads
    out = np.zeros_like(q)
    for h in range(heads):
        part = slice(h * width, (h + 1) * width)
        for i in range(len(q)):
            logits = k[:, part] @ q[i, part] / math.sqrt(width)
            if hides_self:
                logits[i] = -np.inf
            out[i, part] = softmax(logits) @ v[:, part]
    return out


def mlp(x: np.ndarray, block: nn.Module) -> np.ndarray:
    hidden = linear(normed(x, block.norm2), block.mlp.fc1)
    hidden = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    return x + array(block.ls2.gamma) * linear(hidden, block.mlp.fc2)


def reference(model: VisionTransformer, x: np.ndarray) -> np.ndarray:
    """Tokens of one image after the last norm; self-attention among patches, then class attention."""
    a = model.architecture
    P, H, hides = a.num_prefix_tokens, a.heads, a.attention == "lsa"
    classes, patches = x[:P], x[P:]
    for number, block in enumerate(model.blocks):
        if number < a.depth - a.class_attention_blocks:
            q, k, v = np.split(linear(normed(patches, block.norm1), block.attn.qkv), 3, axis=1)
            joined = mixed(q, k, v, H, hides_self=hides)
            patches = patches + array(block.ls1.gamma) * linear(joined, block.attn.proj)
            patches = mlp(patches, block)
        else:
            z = np.concatenate([classes, patches])
            q = linear(normed(classes, block.norm1), block.attn.q)
            k, v = np.split(linear(normed(z, block.norm1), block.attn.kv), 2, axis=1)
            joined = mixed(q, k, v, H, hides_self=hides)
            classes = classes + array(block.ls1.gamma) * linear(joined, block.attn.proj)
            classes = mlp(classes, block)
    return normed(np.concatenate([classes, patches]), model.norm)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    "changes", [{}, {"distilled": True}, {"attention": "lsa", "distilled": True}, {"class_attention_blocks": 1}],
    ids=str,
)  # fmt: skip
def test_class_attention(changes: dict[str, object], fused: bool) -> None:
    model = network(**changes)
    for block in model.blocks:
        block.attn.fused = fused
    images = torch.randn(2, 1, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        found = model.forward_features(images).numpy()
        embedded = model.embed(images).numpy()
    for one, x in zip(found, embedded, strict=True):
        np.testing.assert_allclose(one, reference(model, x), atol=1e-10)


def test_it_is_timms_layer() -> None:
    from timm.models.cait import LayerScaleBlockClassAttn

    block = network().blocks[-1]
    assert isinstance(block, ClassAttentionBlock)
    theirs = LayerScaleBlockClassAttn(
        12, 3, mlp_ratio=2.0, qkv_bias=True, norm_layer=partial(nn.LayerNorm, eps=1e-6)
    )
    k, v = (torch.cat([block.attn.kv.weight, block.attn.kv.bias[:, None]], dim=1)).chunk(2)
    state = {
        "norm1.weight": block.norm1.weight, "norm1.bias": block.norm1.bias, "norm2.weight": block.norm2.weight,
        "norm2.bias": block.norm2.bias, "attn.q.weight": block.attn.q.weight, "attn.q.bias": block.attn.q.bias,
        "attn.k.weight": k[:, :-1], "attn.k.bias": k[:, -1], "attn.v.weight": v[:, :-1], "attn.v.bias": v[:, -1],
        "attn.proj.weight": block.attn.proj.weight, "attn.proj.bias": block.attn.proj.bias,
        "mlp.fc1.weight": block.mlp.fc1.weight, "mlp.fc1.bias": block.mlp.fc1.bias,
        "mlp.fc2.weight": block.mlp.fc2.weight, "mlp.fc2.bias": block.mlp.fc2.bias,
        "gamma_1": block.ls1.gamma, "gamma_2": block.ls2.gamma,
    }  # fmt: skip
    theirs.double().eval().load_state_dict(state)
    x = torch.randn(2, 8, 12, dtype=torch.float64)
    with torch.no_grad():
        found, _ = block(x)
        torch.testing.assert_close(found[:, :1], theirs(x[:, 1:], x[:, :1]), atol=1e-10, rtol=0)
        assert torch.equal(found[:, 1:], x[:, 1:])


def test_reduced_tokens_weigh_by_their_size_and_class_tokens_stay() -> None:
    """Merging equal patches changes nothing that CLS sees, if sizes weigh (ToMe, Section 3)."""
    settings = {"class_attention_blocks": 2, "depth": 3, "distilled": True, "image_size": 4}
    model = network(**settings)
    a = model.architecture
    with torch.no_grad():
        model.pos_embed[:, 2:] = 0
    images = torch.randn(2, 1, 1, 1, dtype=torch.float64).expand(2, 1, 4, 4)
    candidate = Candidate.model_validate({"architecture": a, "tokens": {"reducer": "tome", "r": 2}})
    with torch.no_grad():
        before = model.forward_features(images)
        model.set_reducers(build_reducers(candidate))
        after = model.forward_features(images)
    assert (before.shape[1], after.shape[1]) == (6, 4)
    torch.testing.assert_close(after[:, :2], before[:, :2], atol=1e-10, rtol=0)
    assert candidate.token_counts == (4, 2, 2, 2)
    assert candidate.canonical().tokens.active_blocks(3) == (1,)  # type: ignore[comparison-overlap]
