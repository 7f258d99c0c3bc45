"""Whatever goes together in one candidate: its cost stays exact, and its network comes back from a file."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from vitsearch.candidate import PRUNERS, TOKEN_RULES, Candidate
from vitsearch.compress import PruneContext, assemble, build_reducers, calibrate, insert_quantizers, prune
from vitsearch.compress.quantize import QUANTIZERS
from vitsearch.cost import cost_of
from vitsearch.models import VisionTransformer, build_dense
from vitsearch.profile.macs import count_macs

DEPTH, WIDTH, HEADS, UNITS = 4, 24, 3, 48
SHAPE: dict[str, Any] = {
    "image_size": 10, "in_chans": 1, "num_classes": 5, "patch_size": 2, "depth": DEPTH, "width": WIDTH,
    "heads": HEADS, "mlp_ratio": UNITS / WIDTH,
}  # fmt: skip
VARIANTS: list[dict[str, Any]] = [
    {}, {"layer_scale": True}, {"class_attention_blocks": 1}, {"share_blocks": 2}, {"pooling_branches": True},
]  # fmt: skip
PREFIXES: list[dict[str, Any]] = [
    {}, {"distilled": True}, {"distilled": True, "distillation_tokens": 2}, {"class_token": False, "pool": "avg"},
]  # fmt: skip


def one_or_each(values: st.SearchStrategy[int], length: int) -> st.SearchStrategy[int | tuple[int, ...]]:
    return values | st.tuples(*[values] * length)


@st.composite
def architectures(draw: st.DrawFn) -> dict[str, Any]:
    embedding = draw(st.sampled_from(["linear", "linear", "spt", "conv_stem"]))
    attention = draw(st.sampled_from(["softmax", "softmax", "lsa"]))
    kind = {"patch_embedding": embedding, "attention": attention, "pre_norm": draw(st.booleans())}
    return {**SHAPE, **draw(st.sampled_from(PREFIXES)), **draw(st.sampled_from(VARIANTS)), **kind}


@st.composite
def sparsities(draw: st.DrawFn) -> dict[str, Any]:
    mask = draw(st.sampled_from([{}, {}, {"mask": "2:4"}, {"mask": "unstructured", "zeros": 0.6}]))
    method = draw(st.sampled_from(["none", "magnitude", *PRUNERS]))
    if method == "none":
        return mask
    steps = {"method": method, "steps": draw(st.integers(1, 2)), **mask}
    if draw(st.booleans()) and draw(st.booleans()):
        return {**steps, "macs_ratio": draw(st.sampled_from([0.5, 0.8]))}
    blocks = draw(st.sampled_from([DEPTH, DEPTH, DEPTH - 1, 2]))
    return {
        **steps,
        "blocks": blocks,
        "width": draw(st.sampled_from([WIDTH, WIDTH, 17])),
        "heads": draw(one_or_each(st.integers(1, HEADS), blocks)),
        "qk_dim": draw(st.sampled_from([WIDTH // HEADS, 5])),
        "v_dim": draw(st.sampled_from([WIDTH // HEADS, 3])),
        "mlp_units": draw(one_or_each(st.integers(1, UNITS), blocks)),
    }


@st.composite
def precisions(draw: st.DrawFn) -> dict[str, Any]:
    if draw(st.booleans()):
        return {}
    return {
        "quantizer": draw(st.sampled_from(sorted(QUANTIZERS))),
        "calibration": "minmax",
        "weight_bits": draw(st.sampled_from([1, 2, 3, 4, 8, 16, 32])),
        "activation_bits": draw(st.sampled_from([1, 4, 6, 8, 16, 32])),
        "noisy": draw(st.booleans()),
    }


@st.composite
def candidates(draw: st.DrawFn) -> dict[str, Any]:
    rule = draw(st.sampled_from([None, *TOKEN_RULES.values()]))
    tokens = {} if rule is None else draw(st.sampled_from(rule.examples())).model_dump()
    return {
        "architecture": draw(architectures()), "tokens": tokens or {"reducer": "none"},
        "sparsity": draw(sparsities()), "precision": draw(precisions()),
    }  # fmt: skip


def images(batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, 1, 10, 10, generator=torch.Generator().manual_seed(batch))


def compressed(c: Candidate) -> VisionTransformer:
    torch.manual_seed(0)
    model = build_dense(c.architecture).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    if c.sparsity.prunes:
        labels = torch.arange(4) % 5
        model = prune(model, c, PruneContext(seed=0, batches=((images(4), labels),), epochs=2))
    else:
        model.set_reducers(build_reducers(c))
    insert_quantizers(model, c.precision).eval()
    with torch.no_grad():
        calibrate(model, [images(8)])
    return model


def check_refusal(said: str) -> None:
    assert "; " in said or "needs" in said, "a rule, and after it a remedy"


def check(parts: dict[str, Any]) -> None:
    try:
        c = Candidate.model_validate(parts).canonical()
    except ValidationError as refusal:
        check_refusal(str(refusal))
        return
    model = compressed(c)
    cost = cost_of(c)
    with torch.no_grad():
        found = model(images())
        assert found.isfinite().all()
        again = assemble(c, model.state_dict())
        again.load_state_dict(model.state_dict(), strict=True)
        assert torch.equal(again(images()), found)
        if cost.kind == "exact" and c.sparsity.macs_ratio is None:
            assert cost.num_params == sum(p.numel() for p in model.parameters())
            masked = c.sparsity.mask != "none"
            counted = count_macs(model, images(2), nonzero=masked)
            rounds_to_zero = masked and c.precision.weight_bits < 16  # few bits add zeros of their own
            assert counted <= cost.num_macs if rounds_to_zero else counted == cost.num_macs


@given(parts=candidates())
@settings(max_examples=30, deadline=None)
def test_a_product(parts: dict[str, Any]) -> None:
    check(parts)


@pytest.mark.slow
@given(parts=candidates())
@settings(max_examples=600, deadline=None)
def test_many_products(parts: dict[str, Any]) -> None:
    check(parts)
