"""Token counts of every reducer, against counts made by hand or by an independent loop."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.candidate.factory import deit_s
from vitsearch.candidate import (
    ATS,
    PPT,
    SCORES,
    TOKEN_RULES,
    TPS,
    BlockWidths,
    BlockwiseRule,
    Candidate,
    DiffRate,
    EViT,
    EvoViT,
    GridPool,
    NoReduction,
    SimilarityPool,
    SPViT,
    ThresholdSelection,
    TokenPooling,
    TokenRule,
    ToMe,
    TopK,
    max_merges,
    quarter_blocks,
)
from vitsearch.candidate.tokens.blocks import Schedule

SCHEDULES: tuple[Schedule, ...] = ("constant", "decreasing", "increasing")


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


def test_the_cost_is_bounded_where_the_image_decides_and_exact_where_settings_do():
    kinds = {name: rule.examples()[0].cost_kind for name, rule in TOKEN_RULES.items()}
    bounded = {"threshold", "ats", "similarity_pool", "ltmp", "avit", "iared"}
    assert {name for name, kind in kinds.items() if kind == "bounded"} == bounded
    assert {name for name, kind in kinds.items() if kind == "measured"} == {"diffrate_learned", "ps_vit"}
    assert math.isclose(PPT().tau, 7e-5)


@pytest.mark.parametrize(
    "rule",
    [
        ThresholdSelection(tau=(0.01, 0.0, 0.02), blocks=(2, 3, 5)),
        ATS(samples=(9, 0, 30), blocks=(2, 3, 5)),
        SimilarityPool(cosine=(0.5, 1.0, -1.0), blocks=(2, 3, 5)),
    ],
    ids=repr,
)
def test_the_fewest_tokens_are_one_patch_from_the_first_block_that_acts(rule: TokenRule):
    a = deit_s()
    assert rule.token_counts(a) == [197, 197] + [2] * 11
    resolved = rule.resolved(a)
    assert isinstance(resolved, BlockwiseRule)
    assert resolved.blocks == (2, 5)
    assert rule.budget_counts(a) == [197] * 13


def same(*rules: TokenRule) -> None:
    """All spellings have one canonical form, which is its own."""
    a = deit_s()
    forms = [rule.resolved(a) for rule in rules]
    assert all(form == forms[0] for form in forms), forms
    assert forms[0].resolved(a) == forms[0]
    for rule in rules:
        assert rule.token_counts(a) == forms[0].token_counts(a)
    assert len({Candidate(architecture=a, tokens=rule).hash for rule in rules}) == 1


def test_settings_of_equal_effect_are_one():
    same(ToMe(r=13), ToMe(r=(13,) * 12), ToMe(r=13, blocks=tuple(range(1, 13))))
    same(ToMe(r=10, blocks=(2, 4), schedule="decreasing"), ToMe(r=20, blocks=(2,)))
    same(
        ToMe(r=98),
        ToMe(r=(98, 49, 24, 12, 6, 3, 2, 1, 0, 0, 0, 0)),
        ToMe(r=(98, 98, 98, 98, 6, 3, 2, 1) + (1,) * 4),
    )
    same(PPT(r=50), PPT(r=(50, 50, 48)), PPT(r=(50, 50, 98)))
    same(EViT(), EViT(keep=0.7001), EViT(keep=(0.7, 0.701, 0.7)), EViT(keep=0.7, blocks=(4, 7, 10)))
    same(EViT(keep=0.7, schedule="decreasing"), EViT(keep=(0.49, 0.7), blocks=(4, 7)))
    same(TopK(keep=0.5), TopK(k=(98, 49, 25)), TopK(keep=0.4999))
    same(TopK(k=30), TopK(k=(30, 30, 99)), TopK(k=30, blocks=(4,)))
    same(TopK(k=196), TopK(keep=1.0), EViT(keep=1.0), ToMe(r=0), PPT(r=(0, 0, 0)), NoReduction())


def test_other_settings_of_equal_effect_are_one():
    same(DiffRate(prune=150, merge=90, blocks=(2,)), DiffRate(prune=150, merge=45, blocks=(2,)))
    same(DiffRate(prune=(0, 5), merge=0, blocks=(1, 3)), DiffRate(prune=5, blocks=(3,)))
    same(GridPool(grid=14), GridPool(grid=99, blocks=(4, 5)), GridPool(grid=20, score="magnitude"))
    same(GridPool(grid=1), DiffRate(), TPS(keep=1.0), SPViT(keep=0.999), TokenPooling(k=196), NoReduction())
    same(TPS(keep=0.7), TPS(keep=(0.7, 0.7003, 0.7)))
    same(TokenPooling(keep=0.5), TokenPooling(k=(98, 49, 25)))


def test_counts_of_the_others():
    a = deit_s()
    # 196 patches; 5 and 10 leave each time
    assert DiffRate(prune=5, merge=10).token_counts(a) == [197 - 15 * i for i in range(13)]
    assert DiffRate(prune=150, merge=90, blocks=(2,)).token_counts(a)[1:4] == [197, 2, 2]
    assert TPS(keep=0.7).token_counts(a) == [197] * 4 + [139] * 3 + [98] * 3 + [69] * 3
    assert SPViT(keep=0.7).token_counts(a) == EViT(keep=0.7).token_counts(a)
    assert GridPool(grid=2).token_counts(a) == [197] * 4 + [50] * 9
    assert GridPool(grid=3, blocks=(2, 4, 6, 8)).token_counts(a)[::2] == [197, 26, 5, 2, 2, 2, 2]  # 14, 5, 2, 1
    assert TokenPooling(k=20).token_counts(a) == [197] * 4 + [21] * 9


def test_only_a_weighted_pool_needs_its_score():
    a = deit_s(class_token=False, pool="avg")
    assert GridPool().resolved(a) == GridPool(blocks=(4,))
    with pytest.raises(ValueError, match="grid_pool needs a CLS token for its score, but got score=cls_attention"):
        GridPool(pool="attention").resolved(a)


def test_canonical_shares_are_plain():
    assert EViT(keep=0.7000000001).resolved(deit_s()) == EViT(keep=0.7, blocks=(4, 7, 10))
    assert EViT(keep=0.1 + 0.2, fuse=False).resolved(deit_s()) == EViT(keep=0.3, fuse=False, blocks=(4, 7, 10))


@given(keep=st.floats(0.01, 1), patch_size=st.sampled_from([14, 28, 32, 56]), schedule=st.sampled_from(SCHEDULES))
def test_canonical_shares_keep_as_many(keep: float, patch_size: int, schedule: Schedule):
    a = deit_s(patch_size=patch_size)
    rule = EViT(keep=keep, schedule=schedule)
    assert rule.resolved(a).token_counts(a) == rule.token_counts(a)
    assert rule.resolved(a).resolved(a) == rule.resolved(a)


def test_shares_by_a_schedule():
    # 1 - 2 (1 - 0.7) = 0.4: ceil(.4 * 196) = 79 and a fused one; 0.7: ceil(.7 * 80) = 56; then all
    assert EViT(schedule="decreasing").token_counts(deit_s()) == [197] * 4 + [99] * 3 + [71] * 6
    assert EViT(keep=0.05, schedule="increasing", fuse=False).token_counts(deit_s())[-1] == 2  # one patch stays
    for keep in (0.2, 0.4, 0.7):
        totals = {
            name: EViT(keep=keep, schedule=name, fuse=False).token_counts(deit_s())[-1] for name in SCHEDULES
        }
        assert max(totals.values()) - min(totals.values()) <= 3, "as many are left, but for rounding"


def test_topk():
    assert TopK(k=50).token_counts(deit_s()) == [197] * 4 + [51] * 9
    assert TopK(k=(99, 50, 60)).token_counts(deit_s()) == [197] * 4 + [100] * 3 + [51] * 6
    assert TopK(keep=0.7).token_counts(deit_s()) == EViT(keep=0.7, fuse=False).token_counts(deit_s())


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (TopK(), "topk takes either k or keep, but got k=None, keep=None; write k=8"),
        (TopK(k=3, keep=0.5), "topk takes either k or keep, but got k=3, keep=0.5"),
        (TopK(k=3, schedule="decreasing"), "topk schedule goes with keep, but got k=3, schedule=decreasing"),
        (
            TopK(k=(3, 2)),
            r"topk k must have one figure per chosen block, but got 2 for blocks=\[4, 7, 10\]; write 3",
        ),
        (EViT(keep=(0.5, 0.4, 0.3), schedule="decreasing"), "evit schedule spreads a single keep over the blocks"),
        (ToMe(r=(1, 99), blocks=(1, 2)), "tome r must be at most .* = 98, but got r=99"),
        (ToMe(r=1, blocks=(2, 1)), r"tome blocks must ascend within 1..depth, but got blocks=\[2, 1\], depth=12"),
        (PPT(blocks=(13,)), r"ppt blocks must ascend .* the default is \[4, 7, 10\]"),
    ],
)
def test_settings_that_do_not_fit(rule: TokenRule, message: str):
    with pytest.raises(ValueError, match=message):
        rule.resolved(deit_s())


@pytest.mark.parametrize("rule", [EViT, PPT, TopK])
def test_scores_with_and_without_a_class_token(rule: type[EViT | PPT | TopK]):
    a = deit_s(class_token=False, pool="avg")
    settings = {"keep": 0.5} if rule is not PPT else {"r": 5}
    for name, kind in SCORES.items():
        one = rule.model_validate({**settings, "score": name})
        assert one.needs_class_token == kind.needs_class_token
        if kind.needs_class_token:
            with pytest.raises(
                ValueError, match=rf"needs a CLS token for its score, but got score={name}.*'entropy'"
            ):
                one.resolved(a)
        else:
            assert one.resolved(a).token_counts(a)[-1] < a.num_tokens
        assert one.resolved(deit_s()).token_counts(deit_s())[-1] < 197


def test_what_scores_cost():
    widths = BlockWidths(width=200, heads=6, qk_dim=64, v_dim=10, mlp_units=7)
    dear = {"attention_to_cls", "attention_received", "entropy"}
    for name, kind in SCORES.items():
        assert kind.macs(197, widths) == (
            197**2 * 384 if name in dear else 0 if name in {"magnitude", "learned"} else 197 * 384
        )


def test_an_unknown_score_is_refused_by_name():
    with pytest.raises(ValueError, match="'ats', 'entropy', 'magnitude' or 'learned'"):
        EViT(score="luck")


def test_summaries():
    assert ToMe(r=3, blocks=(1, 2)).summary() == "tome r=3"
    assert EViT(keep=0.7, fuse=False).summary() == "evit keep=0.7"
    assert PPT(r=(8, 4), tau=1e-5).summary() == "ppt r=8,4 tau=1e-05"
    assert TopK(k=5, rest="merge", score="ats").summary() == "topk score=ats k=5 rest=merge"


def test_evo_computes_some_patches_and_keeps_all():
    a = deit_s()
    assert EvoViT().token_counts(a) == [197] * 4 + [100] * 8 + [197]
    assert EvoViT(blocks=(1, 3)).token_counts(a) == [197, 197, 100] + [197] * 10
    assert EvoViT(blocks=(1, 3)).tokens_per_block(a)[1:4] == [(197, 197), (100, 100), (197, 197)]
    same(EvoViT(), EvoViT(keep=0.4999), EvoViT(blocks=tuple(range(5, 13))))
    same(EvoViT(blocks=(1, 2)), EvoViT(blocks=(2,)))
    same(EvoViT(blocks=(1,)), EvoViT(keep=0.999), NoReduction())
    assert EvoViT().resolved(deit_s(depth=1)) == NoReduction()
    with pytest.raises(ValueError, match="evo needs a CLS token"):
        EvoViT().resolved(deit_s(class_token=False, pool="avg"))
