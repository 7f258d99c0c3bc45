import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.unit.candidate.factory import MICRO, deit_s
from vitsearch.candidate import Architecture, divisors, mlp_ratio_of


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 3}, r"width=32, heads=3; choose heads from \[1, 2, 4, 8, 16, 32\]"),
        ({"patch_size": 3}, r"image_size=8, patch_size=3; choose patch_size from \[1, 2, 4, 8\]"),
        ({"class_token": False}, "choose pool=avg"),
        ({"class_token": False, "pool": "avg", "distilled": True}, "distilled=true needs class_token=true"),
        ({"distilled": True, "pool": "avg"}, "choose pool=token"),
        ({"distillation_tokens": 2}, "distillation_tokens=2 needs distilled=true; set it, or leave"),
        ({"distilled": True, "distillation_tokens": 3}, "less than or equal to 2"),
        ({"mlp_ratio": 0.01}, "at least one hidden unit, but got 0.01"),
        ({"mlp_ratio": 0}, "greater than 0"),
        ({"depth": 0}, "greater than or equal to 1"),
        ({"widht": 3}, "Extra inputs"),
        ({"patch_embedding": "conv_stem", "patch_size": 1}, r"got patch_size=1; choose patch_size from \[2, 4\]"),
        ({"patch_embedding": "conv_stem", "image_size": 9, "patch_size": 3}, "choose patch_embedding=linear"),
        ({"patch_embedding": "conv_stem", "patch_size": 8}, "got a single one .* choose a smaller patch_size"),
        ({"class_attention_blocks": 4}, "class_attention_blocks=4, depth=4; choose at most 3"),
        ({"class_attention_blocks": 2, "pool": "avg"}, "got pool=avg; choose pool=token"),
        ({"class_attention_blocks": 2, "class_token": False, "pool": "avg"}, "choose pool=token"),
        ({"share_blocks": 3}, r"depth=4, share_blocks=3; choose share_blocks from \[1, 2, 4\]"),
        ({"share_blocks": 2, "class_attention_blocks": 1}, "set share_blocks=1 or class_attention_blocks=0"),
        ({"pooling_branches": True, "share_blocks": 2}, "got share_blocks=2; set .* or pooling_branches=False"),
        ({"pooling_branches": True, "layer_scale": True}, "got layer_scale=True; set layer_scale=False"),
        ({"pooling_branches": True, "class_attention_blocks": 1}, "got class_attention_blocks=1; set"),
    ],
)
def test_impossible_shapes(changes: dict[str, object], message: str):
    with pytest.raises(ValidationError, match=message):
        Architecture.model_validate({**MICRO, **changes})


def test_token_counts():
    assert (deit_s().num_patches, deit_s().num_prefix_tokens, deit_s().num_tokens) == (196, 1, 197)
    assert deit_s(distilled=True).num_tokens == 198
    assert deit_s(distilled=True, distillation_tokens=2).num_tokens == 199
    assert deit_s(class_token=False, pool="avg").num_tokens == 196
    assert deit_s(patch_size=32).num_tokens == 50


def test_class_tokens_are_not_among_those_that_reducers_see():
    a = deit_s(class_attention_blocks=2, distilled=True)
    part = a.self_attention_part
    assert (part.depth, part.num_tokens, part.num_prefix_tokens) == (10, 196, 0)
    assert deit_s().self_attention_part == deit_s()


def test_younger_fields_are_written_only_when_they_say_something():
    assert not {"class_attention_blocks", "share_blocks"} & set(deit_s().model_dump(mode="json"))
    one = deit_s(class_attention_blocks=2, patch_embedding="conv_stem")
    assert Architecture.model_validate_json(one.model_dump_json()) == one
    assert one.variants == ["conv_stem", "2 class blocks"]
    assert (deit_s(share_blocks=2).variants, deit_s().variants) == (["weights x2"], [])
    assert deit_s(pooling_branches=True).variants == ["pooling branches"]


def test_widths():
    assert (deit_s().head_dim, deit_s().mlp_units) == (64, 1536)
    assert deit_s(mlp_ratio=3.3).mlp_units == 1267  # 1267.2


def test_divisors():
    assert divisors(12) == [1, 2, 3, 4, 6, 12]
    assert divisors(1) == [1]


@given(width=st.integers(1, 4096), units=st.integers(1, 16384))
def test_every_number_of_hidden_units_has_a_ratio(width: int, units: int):
    assert int(width * mlp_ratio_of(units, width)) == units


def test_a_plain_quotient_would_lose_a_unit():
    assert int(49 * (1 / 49)) == 0
    assert int(49 * mlp_ratio_of(1, 49)) == 1
