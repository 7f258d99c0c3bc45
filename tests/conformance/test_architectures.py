"""What every kind of architecture promises beside everything that compresses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.unit.compress.factory import candidate, images, network
from tests.unit.train.factory import CPU
from tests.unit.trial.factory import context, request
from vitsearch.candidate import PRUNERS, Candidate
from vitsearch.compress import PruneContext, assemble, build_reducers, calibrate, insert_quantizers, prune
from vitsearch.compress.inherit import inherit
from vitsearch.compress.quantize import CALIBRATIONS, QUANTIZERS
from vitsearch.config import DatasetSpec, EvaluateSpec, TrainSpec
from vitsearch.cost import cost_of
from vitsearch.messages import TrialResult
from vitsearch.models import VisionTransformer, build_dense
from vitsearch.models.conv_stem import fold_batch_norms, learn_batch_norms
from vitsearch.models.lsa import fold_temperatures, learn_temperatures
from vitsearch.onnx import OnnxModel, export_onnx
from vitsearch.profile.macs import count_macs
from vitsearch.train.data import load_dataset
from vitsearch.train.tensors import TensorData
from vitsearch.trial import load_model, run_trial

KINDS: dict[str, dict[str, Any]] = {
    "stem": {"patch_embedding": "conv_stem", "depth": 4},
    "class attention": {"class_attention_blocks": 2, "depth": 4, "layer_scale": True},
    "class attention, two tokens": {
        "class_attention_blocks": 1, "depth": 4, "distilled": True, "attention": "lsa", "pre_norm": True,
        "patch_embedding": "conv_stem", "patch_bias": False,
    },
    "shared": {"share_blocks": 2, "depth": 4, "layer_scale": True},
    "shared, no cls": {
        "share_blocks": 2, "depth": 4, "class_token": False, "pool": "avg", "attention": "lsa",
        "patch_embedding": "spt",
    },
    "branches": {"pooling_branches": True, "depth": 4},
    "branches, two tokens": {"pooling_branches": True, "depth": 4, "distilled": True, "attention": "lsa"},
}  # fmt: skip
TOKENS: list[dict[str, Any]] = [
    {"reducer": "none"},
    {"reducer": "tome", "r": 2},
    {"reducer": "topk", "k": 7, "score": "attention_received", "blocks": (2,)},
    {"reducer": "tps", "keep": 0.6, "score": "entropy", "blocks": (1,)},
    {"reducer": "grid_pool", "grid": 2, "blocks": (2,)},
]
GRID_TOKENS = [one for one in TOKENS if one["reducer"] in {"none", "grid_pool"}]
SPARSITIES: list[dict[str, Any]] = [
    {"method": "none"},
    {"method": "magnitude", "mlp_units": (20, 20, 7, 7), "heads": (3, 3, 2, 2)},
    {"method": "taylor", "qk_dim": 4, "v_dim": (2, 2, 5, 5), "steps": 2},
    {"method": "vtp", "width": 17, "heads": 3},
    {"method": "random", "blocks": None, "heads": 2, "mlp_units": 11},  # blocks: as few as there can be
]
ALL = {
    "tokens": TOKENS[2],
    "sparsity": {"method": "taylor", "width": 20, "heads": (2, 2, 3, 3), "qk_dim": 5, "v_dim": 4, "mlp_units": 19},
    "precision": {"weight_bits": (8, 8, 6, 6), "activation_bits": 8},
}
SLOW_CALIBRATIONS = ("percentile", "mse", "blockwise")
BITS = [
    (quantizer, calibration)
    for quantizer, calibration in [(q, "minmax") for q in QUANTIZERS] + [("uniform", c) for c in CALIBRATIONS]
    if calibration != "hessian_full" and (quantizer, calibration) != ("uniform", "minmax")
]


def reducers(kind: str) -> list[dict[str, Any]]:
    """Those that go with it."""
    return GRID_TOKENS if "pooling_branches" in KINDS[kind] else TOKENS


def any_pair(i: int, j: int, k: int) -> bool:
    """Some of all triples, in which each kind meets each of five others, and each of these each other."""
    return k == (i + j) % 5


def fewer_tokens(kind: str) -> dict[str, Any]:
    return reducers(kind)[1]


def everything(kind: str) -> dict[str, Any]:
    return {**ALL, "tokens": reducers(kind)[min(2, len(reducers(kind)) - 1)]}


def pruning() -> PruneContext:
    labels = torch.arange(4) % 5
    return PruneContext(seed=3, batches=((images(4), labels), (images(3), labels[:3])), epochs=2)


def compressed(c: Candidate) -> VisionTransformer:
    model = network(c)
    if c.sparsity.method != "none":
        model = prune(model, c, pruning())
    model.set_reducers(build_reducers(c))
    insert_quantizers(model, c.precision).eval()
    with torch.no_grad():
        calibrate(model, [images(16), images(15)])
    return model


@pytest.mark.parametrize(
    ("kind", "tokens", "sparsity"),
    [
        pytest.param(
            kind, tokens, sparsity, id=f"{kind}-{tokens['reducer']}-{sparsity['method']}",
            marks=() if any_pair(i, j, k) or reducers(kind) is GRID_TOKENS else pytest.mark.slow,
        )
        for i, kind in enumerate(KINDS)
        for j, tokens in enumerate(reducers(kind))
        for k, sparsity in enumerate(SPARSITIES)
    ],
)  # fmt: skip
@torch.no_grad()
def test_its_cost_is_exact_whatever_is_removed(
    kind: str, tokens: dict[str, Any], sparsity: dict[str, Any]
) -> None:
    if "blocks" in sparsity:
        a = candidate(KINDS[kind]).architecture
        sparsity = {**sparsity, "blocks": max(a.class_attention_blocks + 1, a.share_blocks)}
        tokens = {**tokens, "blocks": (1,)} if "blocks" in tokens else tokens
    c = candidate(KINDS[kind], tokens=tokens, sparsity=sparsity).canonical()
    model = compressed(c)
    expected = {name: value.shape for name, value in assemble(c).state_dict().items()}
    assert {name: value.shape for name, value in model.state_dict().items()} == expected
    assert cost_of(c).num_params == sum(p.numel() for p in model.parameters())
    assert cost_of(c).num_macs == count_macs(model, images(2))
    assert model(images()).isfinite().all()


@pytest.mark.parametrize("method", sorted({*PRUNERS} - {"magnitude", "taylor", "random"}))
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_every_ranking_ranks_it(kind: str, method: str) -> None:
    c = candidate(KINDS[kind], sparsity={"method": method, "heads": 2, "mlp_units": 13, "v_dim": 4}).canonical()
    model = compressed(c)
    assert cost_of(c).num_params == sum(p.numel() for p in model.parameters())
    assert model(images()).isfinite().all()


@pytest.mark.parametrize("mask", [{"mask": "2:4"}, {"mask": "unstructured", "zeros": 0.6}], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_what_a_mask_leaves_of_it_is_counted(kind: str, mask: dict[str, Any]) -> None:
    c = candidate(KINDS[kind], tokens=fewer_tokens(kind), sparsity=mask).canonical()
    model = prune(network(c), c, pruning()).eval()
    assert cost_of(c).num_macs == count_macs(model, images(2), nonzero=True)
    assert cost_of(c).num_macs < 0.9 * count_macs(model, images(2))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_what_has_no_weight_can_go(kind: str) -> None:
    """A sliced network computes what the dense one does with the units at zero."""
    c = candidate(
        KINDS[kind], sparsity={"method": "magnitude", "heads": 3, "qk_dim": 4, "v_dim": 5, "mlp_units": 30}
    )
    dense = network(c)
    H, K = c.architecture.heads, c.architecture.head_dim
    for block in dense.blocks:
        weight, bias = block.attn.joined_inputs()
        weight, bias = weight.view(3, H, K, -1).clone(), bias.view(3, H, K).clone()
        proj = block.attn.proj.weight.view(-1, H, K)
        for part in (weight, bias):
            part[:, 1] = 0
            part[:2, :, [0, 2]] = 0
            part[2, :, 3] = 0
        proj[:, 1] = 0
        proj[:, :, 3] = 0
        block.attn.set_inputs(weight.flatten(0, 2), bias.flatten())
        if c.architecture.share_blocks > 1:
            for layer in (block.mixing.before, block.mixing.after):
                layer.weight[1] = 0
                layer.weight[:, 1] = 0
        block.mlp.fc1.weight[5:23] = 0
        block.mlp.fc1.bias[5:23] = 0
        block.mlp.fc2.weight[:, 5:23] = 0
    torch.testing.assert_close(prune(dense, c)(images()), dense(images()), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["stem", "class attention", "class attention, two tokens", "branches"])
@torch.no_grad()
def test_a_budget_is_met_over_all_blocks(kind: str) -> None:
    c = candidate(
        KINDS[kind], tokens=fewer_tokens(kind), sparsity={"method": "magnitude", "macs_ratio": 0.6}
    ).canonical()
    model = compressed(c)
    dense = cost_of(c.model_copy(update={"sparsity": candidate().sparsity}))
    assert count_macs(model, images()) == pytest.approx(cost_of(c).num_macs, rel=0.015)
    assert 0.55 < cost_of(c).num_macs / dense.num_macs < 0.75, "stem, norms and heads stay whole"
    again = assemble(c, model.state_dict())
    again.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(again(images()), model(images()))


def loss_of_bits(c: Candidate, model: VisionTransformer) -> float:
    exact = compressed(c.model_copy(update={"precision": candidate().precision}))
    with torch.no_grad():
        expected = exact(images(32))
        return float((model(images(32)) - expected).square().mean() / expected.var())


@pytest.mark.parametrize(
    ("kind", "quantizer", "calibration"),
    [
        pytest.param(
            kind, *bits, marks=pytest.mark.slow if bits[1] in SLOW_CALIBRATIONS or (i + j) % 2 else (),
            id=f"{kind}-{'-'.join(bits)}",
        )
        for i, kind in enumerate(KINDS)
        for j, bits in enumerate(BITS)
    ],
)  # fmt: skip
def test_eight_bits_are_close_and_come_back(kind: str, quantizer: str, calibration: str) -> None:
    precision = {"quantizer": quantizer, "calibration": calibration, "weight_bits": 8, "activation_bits": 8}
    c = candidate(KINDS[kind], tokens=fewer_tokens(kind), precision=precision)
    model = compressed(c)
    assert loss_of_bits(c, model) < 0.1
    again = assemble(c)
    again.load_state_dict(model.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(again(images()), model(images()))
        assert cost_of(c).num_macs == count_macs(model, images())
    assert cost_of(c).num_params == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_is_quantised(kind: str) -> None:
    """So that mean bits, which count all linear and convolution weights at their blocks' bits, tell the truth."""
    c = candidate(KINDS[kind], precision={"weight_bits": 2, "activation_bits": 32})
    model = compressed(c)
    for name, value in model.named_parameters():
        if value.dim() > 1 and name.endswith(".weight"):
            assert max(len(row.unique()) for row in value.detach().flatten(1)) <= 4, name


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        pytest.param(
            kind, parts, id=f"{kind}, {what}",
            marks=() if what == "dense" and kind == "branches" else pytest.mark.slow,
        )
        for kind in KINDS
        for what, parts in (("dense", {}), ("all", everything(kind)))
    ],
)  # fmt: skip
@torch.no_grad()
def test_it_runs_elsewhere(kind: str, parts: dict[str, Any], tmp_path: Path) -> None:
    model = compressed(candidate(KINDS[kind], **parts))
    expected = model(images())
    export_onnx(model, tmp_path / "model.onnx", in_chans=1, image_size=8)
    found = torch.from_numpy(OnnxModel(tmp_path / "model.onnx")(images().numpy()))
    # ties between codes may fall either way
    torch.testing.assert_close(
        found, expected, atol=0.05 * float(expected.abs().max()) if parts else 1e-5, rtol=1e-4
    )
    traced = torch.export.export(model, (images(),)).module()
    torch.testing.assert_close(traced(images()), expected)


@pytest.mark.parametrize("compressing", [False, True], ids=["dense", "all"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_trial_saves_what_it_measured(kind: str, compressing: bool, tmp_path: Path) -> None:
    settings = {**KINDS[kind], "num_classes": 3}
    c = candidate(settings, **(everything(kind) if compressing else {})).canonical()
    outcome = run_trial(request(tmp_path, c), context())
    assert isinstance(outcome, TrialResult), outcome
    assert outcome.num_params == cost_of(c).num_params
    model, data = load_model(c, tmp_path), context().data
    shown, labels = data.normalized(torch.from_numpy(data.source.val)), data.source.labels_N[data.source.val]
    with torch.no_grad():
        assert count_macs(model, shown) == cost_of(c).num_macs
        right = model(shown).argmax(dim=1).numpy() == labels
    assert right.mean() == pytest.approx(outcome.accuracy)


@pytest.fixture(scope="module")
def digits() -> TensorData:
    return TensorData(load_dataset(DatasetSpec(kind="digits"), image_size=8, seed=0), CPU)


@pytest.mark.parametrize(
    "kind",
    ["stem", *(pytest.param(one, marks=pytest.mark.slow) for one in ("class attention", "shared", "branches"))],
)
def test_it_learns_digits(kind: str, digits: TensorData, tmp_path: Path) -> None:
    c = candidate({**KINDS[kind], "num_classes": 10, "layer_scale": False, "patch_size": 4}).canonical()
    recipe = TrainSpec(epochs=8, batch_size=32, lr=3e-3, autocast="fp32")
    wanted = request(
        tmp_path, c, train=recipe, data_fingerprint=digits.source.fingerprint,
        evaluate=EvaluateSpec(batch_size=200),
    )  # fmt: skip
    outcome = run_trial(wanted, context(digits))
    assert isinstance(outcome, TrialResult), outcome
    assert outcome.accuracy > 0.8


def same(one: VisionTransformer, other: VisionTransformer, shown: Tensor) -> bool:
    with torch.no_grad():
        return torch.allclose(one(shown), other(shown), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_of_the_same_shape_is_taken_over(kind: str) -> None:
    c = candidate(KINDS[kind])
    old = network(c)
    torch.manual_seed(9)
    new = assemble(c)
    inherit(new, old, images())
    assert same(new, old, images())


@pytest.mark.parametrize("old", KINDS)
@pytest.mark.parametrize("new", [{}, *KINDS.values()], ids=["plain", *KINDS])
def test_any_network_starts_another(new: dict[str, Any], old: str) -> None:
    """Of another size, too; what is learned in training only is put in place and folded after."""
    source = network(candidate({**KINDS[old], "patch_size": 4}))
    student = network(candidate({**new, "width": 16, "depth": 2 if not new else 4, "mlp_ratio": 3.0}))
    before = {name: value.clone() for name, value in student.state_dict().items()}
    inherit(student, source, images())
    learn_temperatures(student)
    learn_batch_norms(student)
    student.train()(images()).sum().backward()
    fold_temperatures(student)
    fold_batch_norms(student)
    assert set(student.state_dict()) == set(before)
    assert student.eval()(images()).isfinite().all()
    assert not torch.equal(student.blocks[0].attn.proj.weight, before["blocks.0.attn.proj.weight"])


@pytest.mark.parametrize("changes", [{"layer_scale": True}, {"pooling_branches": True}], ids=str)
def test_scales_that_a_start_has_not_change_nothing(changes: dict[str, Any]) -> None:
    plain, student = network(candidate()), build_dense(candidate(changes).architecture).eval()
    inherit(student, plain, images())
    assert same(student, plain, images())


def test_a_plain_start_gives_class_attention_its_weights() -> None:
    """Queries, keys and values of the last block, row by row."""
    plain = network(candidate({"depth": 4}))
    student = network(candidate(KINDS["class attention"]))
    inherit(student, plain, images())
    last = student.blocks[3].attn
    weight, bias = last.joined_inputs()
    source = plain.blocks[3].attn.qkv
    order = weight.view(3, 4, 6, -1).flatten(2).sort().values  # dimensions within a head may change places
    assert torch.allclose(order, source.weight.view(3, 4, 6, -1).flatten(2).sort().values)
    assert torch.allclose(bias.sum(), source.bias.sum(), atol=1e-5)


def test_shared_blocks_start_from_the_first_ones_weights_and_every_norm() -> None:
    plain = network(candidate({"depth": 4}))
    student = network(candidate({"share_blocks": 2, "depth": 4}))
    inherit(student, plain, images())
    for number in range(4):
        assert torch.equal(student.blocks[number].norm1.weight, plain.blocks[number].norm1.weight)
        assert torch.equal(student.blocks[number].mlp.fc2.bias, plain.blocks[number - number % 2].mlp.fc2.bias)
