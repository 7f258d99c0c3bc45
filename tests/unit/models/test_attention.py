from typing import Any

import pytest
import torch
import torch.nn.functional as F

from vitsearch.candidate import Candidate
from vitsearch.compress import build_reducers
from vitsearch.models import Attention, AttentionState, build_dense, log_size_bias

ONE_SIZE = torch.ones(2, 9)


def attention(num_heads: int = 3) -> Attention:
    torch.manual_seed(0)
    layer = Attention(12, num_heads, 4).eval()
    with torch.no_grad():
        layer.qkv.weight.mul_(5)  # peaked rows
    return layer


def tokens() -> torch.Tensor:
    return torch.randn(2, 9, 12, generator=torch.Generator().manual_seed(1))


def sizes() -> torch.Tensor:
    return torch.randint(1, 9, (2, 9), generator=torch.Generator().manual_seed(2)).float()


def explicit_matrix(state: AttentionState, size_BN: torch.Tensor | None) -> torch.Tensor:
    """softmax(Q K^T / sqrt(K) + log s), written out in double precision."""
    q, k = state.q_BHNK.double(), state.k_BHNK.double()
    logits_BHNN = torch.einsum("bhnk,bhmk->bhnm", q, k) / 4**0.5
    if size_BN is not None:
        logits_BHNN = logits_BHNN + size_BN.double().log()[:, None, None, :]
    return logits_BHNN.softmax(-1)


@pytest.mark.parametrize("size_BN", [None, sizes()], ids=["no bias", "log sizes"])
@pytest.mark.parametrize("num_heads", [3, 1], ids=["all heads", "pruned to one"])
@torch.no_grad()
def test_the_cls_row_is_the_first_row_of_the_matrix(size_BN: torch.Tensor | None, num_heads: int):
    _, state = attention(num_heads)(tokens(), log_size_bias(size_BN))
    row_BHN = state.cls_attention_BHN()
    assert row_BHN.shape == (2, num_heads, 9)
    torch.testing.assert_close(row_BHN.double(), explicit_matrix(state, size_BN)[:, :, 0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(row_BHN.sum(-1), torch.ones(2, num_heads))


@pytest.mark.parametrize("size_BN", [None, sizes()], ids=["no bias", "log sizes"])
@pytest.mark.parametrize("fused", [True, False])
@torch.no_grad()
def test_the_output_is_the_matrix_times_the_values(size_BN: torch.Tensor | None, fused: bool):
    layer = attention()
    layer.fused = fused
    found_BND, state = layer(tokens(), log_size_bias(size_BN))
    mixed_BHNK = explicit_matrix(state, size_BN) @ state.v_BHNK.double()
    expected_BND = layer.proj(mixed_BHNK.transpose(1, 2).reshape(2, 9, 12).float())
    torch.testing.assert_close(found_BND, expected_BND, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fused", [True, False])
@torch.no_grad()
def test_sizes_of_one_change_nothing(fused: bool):
    layer = attention()
    layer.fused = fused
    plain_BND, _ = layer(tokens())
    biased_BND, _ = layer(tokens(), log_size_bias(ONE_SIZE))
    torch.testing.assert_close(biased_BND, plain_BND, atol=1e-6, rtol=0)


@torch.no_grad()
def test_a_token_of_size_two_counts_like_two_tokens():
    layer = attention()
    x = tokens()
    doubled_BND, _ = layer(torch.cat([x, x[:, -1:]], dim=1))
    size_BN = torch.ones(2, 9)
    size_BN[:, -1] = 2
    merged_BND, _ = layer(x, log_size_bias(size_BN))
    torch.testing.assert_close(merged_BND, doubled_BND[:, :9], atol=1e-5, rtol=1e-5)


def test_no_sizes_no_bias():
    assert log_size_bias(None) is None
    bias = log_size_bias(sizes())
    assert bias is not None
    assert bias.shape == (2, 1, 1, 9)


def test_gradients_reach_every_parameter_with_a_bias():
    layer = attention()
    layer(tokens(), log_size_bias(sizes()))[0].sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())


@pytest.fixture
def kernel_calls(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """One entry for each call of torch's fused kernel: whether it had a bias."""
    calls: list[bool] = []
    kernel = F.scaled_dot_product_attention

    def spy(*args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(kwargs.get("attn_mask") is not None)
        return kernel(*args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    return calls


TOKEN_RULES: list[dict[str, Any]] = [
    {"reducer": "none"},
    {"reducer": "tome", "r": 2},
    {"reducer": "evit", "keep": 0.7},
    {"reducer": "ppt", "r": 2, "tau": 1e-3},
]


@pytest.mark.parametrize("rule", TOKEN_RULES, ids=lambda rule: rule["reducer"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_every_block_attends_in_the_fused_kernel(
    kernel_calls: list[bool], rule: dict[str, Any], training: bool
) -> None:
    candidate = Candidate.model_validate(
        {
            "architecture": {
                "image_size": 16, "in_chans": 3, "num_classes": 5, "patch_size": 4, "depth": 4, "width": 32,
                "heads": 2,
            },
            "tokens": rule,
        }
    )  # fmt: skip
    model = build_dense(candidate.architecture).train(training)
    model.set_reducers(build_reducers(candidate))
    model(torch.randn(3, 3, 16, 16)).sum().backward()
    assert len(kernel_calls) == 4
    assert any(kernel_calls) == (rule["reducer"] in {"tome", "ppt"}), "merged tokens count by their size"


def test_unfused_attention_leaves_the_kernel_alone(kernel_calls: list[bool]) -> None:
    layer = attention()
    layer.fused = False
    layer(tokens())
    assert kernel_calls == []
    layer.fused = True
    layer(tokens())
    assert kernel_calls == [False]
