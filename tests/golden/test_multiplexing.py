"""Shared blocks with mixed heads against their equations, written out in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.golden.test_class_attention import array, linear, mlp, normed, softmax
from tests.unit.train.factory import architecture
from vitsearch.compress.tokens.scores import SCORE_KERNELS
from vitsearch.models import RepeatedBlock, VisionTransformer, build_dense


def network(**changes: object) -> VisionTransformer:
    torch.manual_seed(0)
    settings = {"depth": 6, "width": 12, "heads": 3, "patch_size": 2, "image_size": 6, "share_blocks": 3,
                "layer_scale": True}  # fmt: skip
    model = build_dense(architecture(**{**settings, **changes})).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def attention(
    model: VisionTransformer, x: np.ndarray, number: int, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Attention matrices before they are mixed, and the output, of use ``number`` of the shared weights."""
    a = model.architecture
    owner, use = model.blocks[number - number % a.share_blocks], model.blocks[number]
    H, K, N = a.heads, a.head_dim, len(x)
    q, k, v = (part.reshape(N, H, K) for part in np.split(linear(normed(x, use.norm1), owner.attn.qkv), 3, axis=1))
    before, after = (array(layer.weight)[:, :, 0, 0] for layer in (use.mixing.before, use.mixing.after))
    A = np.zeros((H, N, N))
    for n in range(H):
        for i in range(N):
            logits = np.zeros(N)
            for j in range(N):
                logits[j] = sum(before[n, m] * (q[i, m] @ k[j, m]) / math.sqrt(K) for m in range(H))
                logits[j] += math.log(sizes[j])
                if a.attention == "lsa" and i == j:
                    logits[j] = -np.inf
            A[n, i] = softmax(logits)
    joined = np.zeros((N, H, K))
    for h in range(H):
        for i in range(N):
            joined[i, h] = sum(after[h, n] * (A[n, i] @ v[:, h]) for n in range(H))
    return A, x + array(use.ls1.gamma) * linear(joined.reshape(N, H * K), owner.attn.proj)


class Use:
    """A use's own norm and scale with the shared MLP."""

    def __init__(self, model: VisionTransformer, number: int) -> None:
        use = model.blocks[number]
        self.norm2, self.ls2 = use.norm2, use.ls2
        self.mlp = model.blocks[number - number % model.architecture.share_blocks].mlp


@pytest.mark.parametrize("changes", [{}, {"share_blocks": 2, "distilled": True}, {"attention": "lsa"}], ids=str)
def test_weight_multiplexing(changes: dict[str, object]) -> None:
    model = network(**changes)
    images = torch.randn(2, 1, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        found, embedded = model.forward_features(images).numpy(), model.embed(images).numpy()
    for one, tokens in zip(found, embedded, strict=True):
        x = tokens
        for number in range(model.architecture.depth):
            _, x = attention(model, x, number, np.ones(len(x)))
            x = mlp(x, Use(model, number))  # type: ignore[arg-type]  # what of a block the MLP half reads
        np.testing.assert_allclose(one, normed(x, model.norm), atol=1e-9)


def test_sizes_and_scores_are_about_the_mixed_logits() -> None:
    model = network()
    x = torch.randn(2, 10, 12, dtype=torch.float64)
    sizes = torch.randint(1, 4, (2, 10)).double()
    with torch.no_grad():
        found, state = model.blocks[1].attend(x, sizes)
    for b in range(2):
        A, out = attention(model, x[b].numpy(), 1, sizes[b].numpy())
        np.testing.assert_allclose(found[b].numpy(), out, atol=1e-10)
        np.testing.assert_allclose(state.cls_attention_BHN()[b].detach().numpy(), A[:, 0], atol=1e-10)
        received = SCORE_KERNELS["attention_received"](x, state, 1)[b].detach().numpy()
        np.testing.assert_allclose(received, A.sum(axis=(0, 1))[1:], atol=1e-10)


def test_it_starts_as_the_plain_network_with_repeated_weights() -> None:
    torch.manual_seed(0)
    shared = build_dense(architecture(depth=4, share_blocks=2)).eval()
    plain = build_dense(architecture(depth=4)).eval()
    state = shared.state_dict()
    for name in plain.state_dict():
        if name not in state:
            number = int(name.split(".")[1])
            state[name] = state[name.replace(f"blocks.{number}.", f"blocks.{number - 1}.", 1)]
    plain.load_state_dict({name: value for name, value in state.items() if ".mixing." not in name})
    images = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(shared(images), plain(images))


def test_weights_are_there_once_and_both_uses_teach_them() -> None:
    model = network()
    owner, repeated = model.blocks[0], model.blocks[1]
    assert isinstance(repeated, RepeatedBlock)
    assert repeated.attn is owner.attn
    assert repeated.mlp is owner.mlp
    assert not any(name.startswith(("blocks.1.attn", "blocks.1.mlp")) for name in model.state_dict())
    x = torch.randn(2, 10, 12, dtype=torch.float64)
    weight = owner.attn.qkv.weight
    first, middle = owner(x)[0], None
    middle = repeated(first)[0]
    (both,) = torch.autograd.grad(middle.sum(), weight, retain_graph=True)
    (last,) = torch.autograd.grad(repeated(first.detach())[0].sum(), weight)
    assert not torch.allclose(both, last)
