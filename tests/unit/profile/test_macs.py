import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vitsearch.profile.macs import FREE_OPERATORS, count_macs


class Fn(nn.Module):
    """A function as a network, for the counter only."""

    def __init__(self, function, *layers: nn.Module):
        super().__init__()
        self.function = function
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        return self.function(x, *self.layers)


def count(function, *shape: int, layers: tuple[nn.Module, ...] = ()) -> int:
    with torch.no_grad():
        return count_macs(Fn(function, *layers).eval(), torch.rand(shape))


def test_linear_and_convolution():
    assert count(lambda x, f: f(x), 1, 7, 4, layers=(nn.Linear(4, 3),)) == 7 * 4 * 3
    assert count(lambda x, f: f(x), 1, 2, 8, 8, layers=(nn.Conv2d(2, 5, 4, stride=4),)) == 4 * 5 * 2 * 16


def test_matrix_products():
    assert count(lambda x: x @ x.transpose(-2, -1), 1, 3, 5, 4) == 3 * 5 * 5 * 4


def test_layer_norm_is_5_per_element():
    assert count(lambda x, f: f(x), 1, 7, 4, layers=(nn.LayerNorm(4),)) == 5 * 7 * 4


def test_fused_attention_is_counted():
    def attend(x):
        return F.scaled_dot_product_attention(x, x, x)

    assert count(attend, 1, 3, 7, 4) == 2 * 3 * 7 * 7 * 4  # fvcore alone says 0


def test_fused_attention_of_one_query():
    assert count(lambda x: F.scaled_dot_product_attention(x[:, :, :1], x, x), 1, 3, 7, 4) == 2 * 3 * 1 * 7 * 4


def test_fused_attention_with_a_mask_counts_the_same():
    def attend(x):
        return F.scaled_dot_product_attention(x, x, x, attn_mask=torch.zeros(1, 1, 7, 7))

    assert count(attend, 1, 3, 7, 4) == 2 * 3 * 7 * 7 * 4


def test_the_batch_is_divided_out():
    def block(x, f):
        return F.scaled_dot_product_attention(f(x), x, x)

    layers = (nn.Linear(4, 4),)
    assert count(block, 5, 3, 7, 4, layers=layers) == count(block, 1, 3, 7, 4, layers=layers)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: torch.cumprod(x, -1), "aten::cumprod"),
        (lambda x: torch.fft.rfft(x).real, "aten::fft_rfft"),
        (torch.linalg.inv, "aten::linalg_inv"),
        (torch.erfinv, "aten::erfinv"),
    ],
    ids=["cumprod", "fft", "inv", "erfinv"],
)
def test_an_unknown_operator_is_refused_by_name(function, name: str):
    with pytest.raises(ValueError, match="operators without a count") as caught:
        count(function, 1, 4, 4)
    assert name in str(caught.value)


def test_free_operators_are_free():
    assert count(lambda x: F.gelu(x).softmax(-1) + x * 2, 1, 4, 4) == 0


def test_nothing_that_multiplies_matrices_is_free():
    heavy = {"matmul", "bmm", "mm", "addmm", "baddbmm", "linear", "conv2d", "_convolution", "einsum",
             "scaled_dot_product_attention", "layer_norm", "native_layer_norm", "cdist", "dot", "mv"}  # fmt: skip
    assert not FREE_OPERATORS & {f"aten::{name}" for name in heavy}


def test_counting_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Linear(4, 4), nn.GELU()).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert count_macs(model, torch.rand(1, 4)) == 16
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_weights_that_are_zero_can_be_left_out():
    linear, conv = nn.Linear(4, 3), nn.Conv2d(2, 5, 4, stride=4)
    with torch.no_grad():
        linear.weight[1, :3] = 0
        conv.weight[2, 1, 0, :2] = 0

    def twice(x, f):
        return f(x) + f(x[:, :2]).sum()

    def counted(function, layer, *shape: int, nonzero: bool) -> int:
        return count_macs(Fn(function, layer).eval(), torch.rand(shape), nonzero=nonzero)

    assert counted(twice, linear, 2, 7, 4, nonzero=False) == (7 + 2) * 12
    assert counted(twice, linear, 2, 7, 4, nonzero=True) == (7 + 2) * (12 - 3)
    assert counted(lambda x, f: f(x), conv, 3, 2, 8, 8, nonzero=True) == 4 * (5 * 2 * 16 - 2)
    assert not linear._forward_hooks
