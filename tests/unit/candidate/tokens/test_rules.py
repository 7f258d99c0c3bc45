"""Token counts of every reducer, against counts made by hand or by an independent loop."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.candidate.factory import deit_s
from vitsearch.candidate import PPT, TOKEN_RULES, EViT, NoReduction, ToMe, max_merges
from vitsearch.candidate.tokens.rule import quarter_blocks


def by_hand(num_tokens: int, merges: list[int], protected: int) -> list[int]:
    """Merging reducers in words: no more than half of the unprotected tokens leave at once."""
    counts = [num_tokens]
    for wanted in merges:
        counts.append(counts[-1] - min(wanted, (counts[-1] - protected) // 2))
    return counts


def test_names_in_the_table_are_the_discriminators():
    assert {name: rule.model_fields["reducer"].default for name, rule in TOKEN_RULES.items()} == {
        name: name for name in TOKEN_RULES
    }


def test_no_reduction():
    assert NoReduction().token_counts(deit_s()) == [197] * 13
    assert NoReduction().active_blocks(12) == ()


def test_evit_as_published_for_deit_s():
    counts = EViT(keep=0.7).token_counts(deit_s())
    # ceil(.7 * 196) = 138, ceil(.7 * 139) = 98, ceil(.7 * 99) = 70; each with CLS and the fused token
    assert counts == [197] * 4 + [140] * 3 + [100] * 3 + [72] * 3
    assert list(dict.fromkeys(counts)) == [197, 140, 100, 72]


def test_evit_without_fusing():
    # 138, ceil(.7 * 138) = 97, ceil(.7 * 97) = 68; each with CLS
    assert EViT(keep=0.7, fuse=False).token_counts(deit_s()) == [197] * 4 + [139] * 3 + [98] * 3 + [69] * 3


def test_evit_keeps_cls_and_distillation_token():
    # ceil(.5 * 196) = 98 + 2 + 1; ceil(.5 * 99) = 50 + 3; ceil(.5 * 51) = 26 + 3
    assert EViT(keep=0.5).token_counts(deit_s(distilled=True)) == [198] * 4 + [101] * 3 + [53] * 3 + [29] * 3


def test_evit_is_exact_where_floats_are_not():
    a = deit_s(image_size=160)  # 100 patches; 0.07 * 100 = 7.000000000000001
    assert EViT(keep=0.07, fuse=False, blocks=(1,)).token_counts(a)[1] == 1 + 7


def test_tome_constant():
    assert ToMe(r=13).token_counts(deit_s()) == [197 - 13 * i for i in range(13)]


def test_tome_decreasing_from_twice_r_to_nothing():
    rates = [26, 24, 21, 19, 17, 14, 12, 9, 7, 5, 2, 0]  # 26 (1 - i / 11), rounded by hand
    rule = ToMe(r=13, schedule="decreasing")
    assert [rule.rate(block, 12) for block in range(1, 13)] == rates
    assert sum(rates) == 12 * 13
    assert rule.token_counts(deit_s()) == by_hand(197, rates, 1)


def test_tome_increasing_is_the_mirror():
    rates = [0, 2, 5, 7, 9, 12, 14, 17, 19, 21, 24, 26]
    assert ToMe(r=13, schedule="increasing").token_counts(deit_s()) == by_hand(197, rates, 1)


def test_tome_in_chosen_blocks():
    counts = ToMe(r=10, blocks=(2, 4), schedule="decreasing").token_counts(deit_s())
    assert counts == [197, 197, 177, 177] + [177] * 9


def test_tome_stops_at_half_of_what_is_left():
    # 197 -> 99 (98 of 196), 50 (49 of 98), 26 (24 of 49), 14 (12 of 25), 8 (6 of 13), 5, 3, 2, 2, ...
    assert ToMe(r=98).token_counts(deit_s()) == [197, 99, 50, 26, 14, 8, 5, 3, 2, 2, 2, 2, 2]


def test_distilled_models_protect_two():
    assert ToMe(r=98).token_counts(deit_s(distilled=True)) == by_hand(198, [98] * 12, 2)
    assert ToMe(r=98).token_counts(deit_s(distilled=True))[-1] == 3
    with pytest.raises(ValueError, match="= 98, but got r=99"):
        ToMe(r=99).resolved(deit_s(distilled=True))


def test_without_prefix_tokens_half_of_all_may_merge():
    a = deit_s(class_token=False, pool="avg")
    assert ToMe(r=98).token_counts(a)[:3] == [196, 98, 49]


def test_ppt_as_published_for_deit_s():
    counts = PPT().token_counts(deit_s())
    assert list(dict.fromkeys(counts)) == [197, 147, 97, 49]  # the third may remove (97 - 1) // 2 = 48 of 50
    assert counts == [197] * 4 + [147] * 3 + [97] * 3 + [49] * 3


@given(
    r=st.integers(0, 32),
    patch_size=st.sampled_from([28, 32, 56]),
    depth=st.integers(1, 14),
    distilled=st.booleans(),
)
def test_merging_reducers_follow_the_loop(r: int, patch_size: int, depth: int, distilled: bool):
    a = deit_s(patch_size=patch_size, depth=depth, distilled=distilled)
    assert ToMe(r=r).token_counts(a) == by_hand(a.num_tokens, [r] * depth, a.num_prefix_tokens)
    chosen = quarter_blocks(depth)
    merges = [r if block in chosen else 0 for block in range(1, depth + 1)]
    assert PPT(r=r).token_counts(a) == by_hand(a.num_tokens, merges, a.num_prefix_tokens)


@given(keep=st.integers(1, 100), patch_size=st.sampled_from([14, 28, 56]), fuse=st.booleans())
def test_evit_follows_the_loop(keep: int, patch_size: int, fuse: bool):
    a = deit_s(patch_size=patch_size)
    counts = [a.num_tokens]
    for block in range(1, 13):
        patches = counts[-1] - 1
        kept = -(-keep * patches // 100)  # the ceiling in whole numbers
        fused = int(fuse and kept < patches)
        counts.append(1 + kept + fused if block in (4, 7, 10) else counts[-1])
    assert EViT(keep=keep / 100, fuse=fuse).token_counts(a) == counts


@pytest.mark.parametrize(
    ("depth", "blocks"),
    [(12, (4, 7, 10)), (24, (7, 13, 19)), (4, (2, 3, 4)), (3, (1, 2, 3)), (2, (1, 2)), (1, (1,))],
)
def test_default_blocks_stand_at_the_quarters(depth: int, blocks: tuple[int, ...]):
    assert quarter_blocks(depth) == blocks
    assert EViT().active_blocks(depth) == PPT().active_blocks(depth) == blocks


def test_max_merges():
    assert [max_merges(n, 1) for n in (1, 2, 3, 4, 197)] == [0, 0, 1, 1, 98]
    assert max_merges(1, 2) == 0


def test_every_published_rule_has_an_exact_cost():
    assert {
        rule.model_validate({"r": 1} if "r" in rule.model_fields else {}).cost_kind
        for rule in TOKEN_RULES.values()
    } == {"exact"}
    assert math.isclose(PPT().tau, 7e-5)
