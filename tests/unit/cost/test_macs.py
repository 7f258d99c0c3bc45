import pytest
import torch

from tests.unit.candidate.factory import DEIT_S, micro
from tests.unit.cost.factory import built_figures, random_candidates
from vitsearch.candidate import Candidate
from vitsearch.compress import assemble
from vitsearch.cost import num_macs, num_params
from vitsearch.cost.macs import block_macs, head_macs, stem_macs
from vitsearch.models import build_dense
from vitsearch.profile.macs import count_macs


@pytest.mark.parametrize(("preset", "count"), [("vit_micro_8", 25), ("vit_tiny_32", 8), ("vit_small_64", 4)])
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "pruned"])
def test_closed_form_equals_the_built_model(preset: str, count: int, sparse: bool):
    candidates = random_candidates(preset, count, sparse=sparse)
    assert any(c.sparsity.method != "none" for c in candidates) == sparse
    for candidate in candidates:
        assert (num_params(candidate), num_macs(candidate)) == built_figures(candidate), candidate.summary()


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "pruned"])
def test_closed_form_equals_the_built_model_at_224(sparse: bool):
    for candidate in random_candidates("deit_224", 1, sparse=sparse):
        assert (num_params(candidate), num_macs(candidate)) == built_figures(candidate), candidate.summary()


SPARSITIES: list[dict[str, object]] = [
    {"qk_dim": 3},
    {"v_dim": (1, 8, 5, 2)},
    {"qk_dim": (8, 2, 4, 1), "v_dim": 3, "heads": (1, 4, 2, 3)},
    {"width": 13},
    {"blocks": 1},
    {"blocks": 3, "width": 20, "heads": (4, 1, 2), "qk_dim": (8, 3, 1), "v_dim": (2, 8, 7), "mlp_units": 50},
]
TOKENS: list[dict[str, object]] = [
    {"reducer": "none"},
    {"reducer": "tome", "r": 2},
    {"reducer": "evit", "keep": 0.6, "blocks": [1]},
    {"reducer": "ppt", "r": 3, "tau": 0.0, "blocks": [1]},
]


@pytest.mark.parametrize("sparsity", SPARSITIES, ids=str)
@pytest.mark.parametrize("tokens", TOKENS, ids=lambda rule: str(rule["reducer"]))
@pytest.mark.parametrize(
    "changes", [{}, {"distilled": True, "pre_norm": True, "layer_scale": True}], ids=["", "deit"]
)
def test_closed_form_equals_every_kind_of_sparsity(
    sparsity: dict[str, object], tokens: dict[str, object], changes: dict[str, object]
):
    candidate = micro(changes, sparsity={"method": "magnitude", **sparsity}, tokens=tokens)
    a = candidate.architecture
    model = assemble(candidate)
    with torch.no_grad():
        counted = count_macs(model, torch.randn(2, a.in_chans, a.image_size, a.image_size))
    assert num_macs(candidate) == counted
    assert num_params(candidate) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    "changes",
    [
        {"distilled": True},
        {"distilled": True, "distillation_tokens": 2},
        {"pre_norm": True},
        {"patch_bias": False},
        {"layer_scale": True},
        {"pool": "avg"},
        {"class_token": False, "pool": "avg"},
        {"num_classes": 0},
        {"num_classes": 0, "distilled": True},
        {"mlp_ratio": 2.7},
        {"patch_size": 8},
        {"depth": 1, "in_chans": 3},
        {"pre_norm": True, "patch_bias": False, "layer_scale": True, "class_token": False, "pool": "avg"},
    ],
    ids=str,
)
def test_closed_form_equals_every_kind_of_architecture(changes: dict[str, object]):
    candidate = micro(changes)
    a = candidate.architecture
    model = build_dense(a).eval()
    counted = count_macs(model, torch.zeros(1, a.in_chans, a.image_size, a.image_size))
    assert num_macs(candidate) == counted
    assert num_params(candidate) == sum(p.numel() for p in model.parameters())


def test_the_count_is_per_image():
    candidate = micro()
    assert built_figures(candidate, batch=3) == built_figures(candidate, batch=1)


TINY = {"image_size": 4, "patch_size": 2, "depth": 2, "width": 4, "heads": 2, "mlp_ratio": 2.0, "num_classes": 2}


def test_by_hand():
    candidate = micro(TINY)
    assert stem_macs(candidate) == 4 * (4 * 4)  # 4 patches of 4 pixels into 4 channels
    assert head_macs(candidate) == 4 * 2
    (first, second) = block_macs(candidate)  # 5 tokens
    assert first == second
    assert first.linear == 5 * (4 * 12) + 5 * (4 * 4) + 2 * 5 * (4 * 8)
    assert first.matmul == 2 * (5 * 5 * 4)
    assert first.norm == 2 * 5 * (5 * 4)
    assert num_macs(candidate) == 64 + 2 * (640 + 200 + 200) + 5 * (5 * 4) + 8


def test_class_attention_by_hand():
    first, second = block_macs(micro({**TINY, "class_attention_blocks": 1}))
    assert (first.linear, first.matmul, first.norm) == (4 * 64 + 2 * 4 * 32, 2 * 16 * 4, 5 * (4 + 4) * 4)
    # one query, five keys and values, one token in the projection and the MLP
    assert second.linear == 1 * 16 + 5 * 32 + 1 * 16 + 2 * 32
    assert (second.matmul, second.norm) == (2 * 5 * 4, 5 * (5 + 1) * 4)


def test_mixed_heads_by_hand():
    for block in block_macs(micro({**TINY, "share_blocks": 2})):
        assert block.linear == 640 + 2 * (5 * 5) * 2**2
        assert (block.matmul, block.norm) == (200, 200)


def test_a_stem_by_hand():
    # 3 x 3 pixels into 4 channels at 4 places, then 4 channels into 4
    assert stem_macs(micro({**TINY, "patch_embedding": "conv_stem"})) == 4 * (9 * 4) + 4 * (4 * 4)


def test_bits_change_no_macs():
    assert num_macs(micro(precision={"weight_bits": 4, "activation_bits": 8})) == num_macs(micro())


def test_reduced_tokens_cost_less_after_the_attention():
    # block 1 attends over 5 tokens and merges 2 (of 5: 3 x 2 similarities of head width 2); then 3 tokens remain
    candidate = micro(TINY, tokens={"reducer": "tome", "r": 2, "blocks": [1]})
    assert candidate.tokens.token_counts(candidate.architecture) == [5, 3, 3]
    first, second = block_macs(candidate)
    assert (first.linear, first.matmul, first.norm) == (
        5 * 64 + 2 * 3 * 32,
        2 * 25 * 4 + 3 * 2 * 2,
        5 * (5 + 3) * 4,
    )
    assert (second.linear, second.matmul, second.norm) == (3 * 64 + 2 * 3 * 32, 2 * 9 * 4, 5 * (3 + 3) * 4)


def test_pruned_heads_and_units_cost_nothing():
    candidate = micro(TINY, sparsity={"method": "magnitude", "mlp_units": [8, 3], "heads": [1, 2]})
    first, second = block_macs(candidate)
    assert first.linear == 5 * (4 * 6) + 5 * (2 * 4) + 2 * 5 * (4 * 8)
    assert first.matmul == 2 * 25 * 2
    assert second.linear == 5 * 64 + 2 * 5 * (4 * 3)


@pytest.mark.parametrize(
    ("reducer", "published_g", "digits"), [("none", 4.61, 2), ("evit", 3.0, 1), ("ppt", 2.94, 2)]
)
def test_deit_s_costs_what_was_published(reducer: str, published_g: float, digits: int):
    candidate = Candidate.model_validate({"architecture": DEIT_S, "tokens": {"reducer": reducer}})
    assert num_macs(candidate) / 1e9 == pytest.approx(published_g, abs=10**-digits)
