from pathlib import Path
from typing import Any

import pytest
import yaml

from vitsearch.candidate import PRUNERS, SCORES, TOKEN_RULES, EViT, NoReduction, TokenRule, ToMe, TopK
from vitsearch.config import SpaceSpec, parse
from vitsearch.errors import InputError
from vitsearch.space import SearchSpace
from vitsearch.space.space import known_fields
from vitsearch.testing import random_candidates

FIXED: dict[str, Any] = {
    "architecture.image_size": 8,
    "architecture.patch_size": 2,
    "architecture.depth": 2,
    "architecture.width": 24,
    "architecture.heads": 2,
}


def space(fixed: dict[str, Any] | None = None, /, without: str = "", **dimensions: Any) -> SearchSpace:
    """A space over ``FIXED``; dimensions are written with ``__`` for the dot."""
    values = {k: v for k, v in {**FIXED, **(fixed or {})}.items() if k != without}
    spec = {"name": "s", "fixed": values, "dimensions": {k.replace("__", "."): v for k, v in dimensions.items()}}
    return SearchSpace(parse(SpaceSpec, spec, where="s.yaml"), in_chans=1, num_classes=10)


def refused(field: str, match: str, *args: Any, **kwargs: Any) -> InputError:
    with pytest.raises(InputError, match=match) as caught:
        space(*args, **kwargs)
    assert caught.value.field == field
    return caught.value


def test_fixed_values_make_the_candidate():
    candidate = space().decode({})
    a = candidate.architecture
    assert (a.image_size, a.patch_size, a.depth, a.width, a.heads, a.mlp_ratio) == (8, 2, 2, 24, 2, 4.0)
    assert (a.in_chans, a.num_classes) == (1, 10)
    assert candidate.tokens == NoReduction()


def test_a_fixed_reducer_with_its_settings():
    assert space({"tokens.reducer": "evit", "tokens.keep": 0.5, "tokens.fuse": False}).decode({}).tokens == EViT(
        keep=0.5, fuse=False, blocks=(1, 2)
    )


def test_heads_move_to_the_nearest_divisor_of_the_width():
    choices = space(architecture__heads={"choices": [1, 2, 5, 7, 9, 11, 20, 100]}, without="architecture.heads")
    found = [choices.decode({"architecture.heads": h}).architecture.heads for h in (1, 2, 5, 7, 9, 11, 20, 100)]
    # divisors of 24: 1 2 3 4 6 8 12 24; nearest by ratio: 5/4 > 6/5, 7/6 > 8/7, 9/8 < 12/9, 12/11, 24/20 < 20/12
    assert found == [1, 2, 6, 8, 8, 12, 24, 24]


def test_patches_move_to_the_nearest_divisor_that_leaves_more_than_one():
    choices = space(architecture__patch_size={"choices": [1, 2, 3, 5, 8, 100]}, without="architecture.patch_size")
    found = [choices.decode({"architecture.patch_size": p}).architecture.patch_size for p in (1, 2, 3, 5, 8, 100)]
    assert found == [1, 2, 4, 4, 4, 4]  # 8 itself would leave one patch


def test_r_is_held_to_what_the_tokens_allow():
    one = space({"tokens.reducer": "tome"}, tokens__r={"low": 1, "high": 100})
    assert one.decode({"tokens.r": 100}).tokens == ToMe(r=(8, 4), blocks=(1, 2))
    assert one.decode({"tokens.r": 3}).tokens == ToMe(r=3, blocks=(1, 2))


def test_conditions_chain():
    one = space(
        tokens__reducer={"choices": ["none", "tome", "evit"]},
        tokens__r={"low": 1, "high": 3, "when": {"tokens.reducer": ["tome"]}},
        tokens__schedule={"choices": ["constant", "decreasing"], "when": {"tokens.r": 3}},
    )
    draw = {"tokens.reducer": "tome", "tokens.r": 3, "tokens.schedule": "decreasing"}
    assert one.decode(draw).tokens == ToMe(r=6, blocks=(1,))
    assert one.decode({**draw, "tokens.r": 2}).tokens == ToMe(r=2, blocks=(1, 2))
    assert one.decode({**draw, "tokens.reducer": "none"}).tokens == NoReduction()
    assert one.decode({**draw, "tokens.reducer": "evit"}).tokens == EViT(blocks=(1, 2))


def test_rates_of_a_reducer_may_vary_per_block():
    one = space(
        {"tokens.reducer": "evit", "tokens.score": "ats"},
        without="architecture.depth",
        architecture__depth={"choices": [2, 4]},
        tokens__keep={"low": 0.25, "high": 1.0, "step": 0.25, "per_block": True},
        tokens__blocks={"choices": ["quarters", "all", "2, 3", "9"]},
    )
    draw = {f"tokens.keep[{i}]": keep for i, keep in enumerate((0.25, 0.5, 0.75, 1.0), start=1)}

    def tokens(depth: int, blocks: str) -> TokenRule:
        return one.decode({**draw, "architecture.depth": depth, "tokens.blocks": blocks}).tokens

    # 16 patches; 0.5: 8 + 1 fused; 0.75 of those: 7 + 1
    assert tokens(4, "quarters") == EViT(keep=(0.5, 0.7), blocks=(2, 3), score="ats")
    assert tokens(4, "all") == EViT(keep=(0.2, 0.6, 0.7), blocks=(1, 2, 3), score="ats")  # 4 + 1, 3 + 1, 3 + 1
    assert tokens(4, "2, 3") == tokens(4, "quarters")
    assert tokens(4, "9") == NoReduction()  # the last block, which keeps all
    assert tokens(2, "9") == tokens(2, "2, 3") == EViT(keep=0.5, blocks=(2,), score="ats")


def test_settings_of_topk_have_conditions():
    one = space(
        tokens__reducer={"choices": ["none", "topk"]},
        tokens__score={"choices": ["cls_attention", "magnitude"], "when": {"tokens.reducer": "topk"}},
        tokens__k={"low": 2, "high": 10, "when": {"tokens.reducer": "topk"}},
        tokens__rest={"choices": ["drop", "merge"], "when": {"tokens.reducer": "topk"}},
    )
    draw = {"tokens.score": "magnitude", "tokens.k": 5, "tokens.rest": "merge"}
    found = one.decode({"tokens.reducer": "topk", **draw}).tokens
    assert found == TopK(k=5, blocks=(1,), score="magnitude", rest="merge")
    assert one.decode({"tokens.reducer": "none", **draw}).tokens == NoReduction()


def test_blocks_are_names_or_numbers():
    for value in ("some", "0", "1,,2", "1.5", True, 2.0):
        refused(
            "space.fixed.tokens.blocks", "'all', 'quarters' or block numbers",
            {"tokens.reducer": "evit", "tokens.blocks": value},
        )  # fmt: skip
    assert space({"tokens.reducer": "evit", "tokens.blocks": 1}).decode({}).tokens == EViT(blocks=(1,))


def test_per_block_axes_follow_the_depth():
    one = space(
        architecture__depth={"low": 1, "high": 3},
        precision__weight_bits={"choices": [4, 8], "per_block": True},
        without="architecture.depth",
    )
    names = [axis.name for axis in one.dimensions]
    assert names == ["architecture.depth", *(f"precision.weight_bits[{i}]" for i in (1, 2, 3))]
    draw = {"precision.weight_bits[1]": 4, "precision.weight_bits[2]": 8, "precision.weight_bits[3]": 4}
    assert one.decode({**draw, "architecture.depth": 3}).precision.weight_bits == (4, 8, 4)
    assert one.decode({**draw, "architecture.depth": 2}).precision.weight_bits == (4, 8)
    assert one.decode({**draw, "architecture.depth": 1}).precision.weight_bits == 4


@pytest.mark.parametrize(("ratio", "units"), [(0.0, None), (0.125, 84), (0.25, 72), (0.5, 48), (0.99, 1)])
def test_sparsity_ratios_remove_the_floor(ratio: float, units: int | None):
    # 96 units: 12, 24, 48, 95 leave
    assert space({"sparsity.mlp_ratio": ratio}).decode({}).sparsity.mlp_units == units


def test_the_last_head_stays():
    one = space({"sparsity.heads_ratio": 0.9, "architecture.heads": 1}).decode({})
    assert one.architecture.heads == 1
    assert one.sparsity.heads is None


def test_a_mask_is_a_choice():
    one = space(
        sparsity__mask={"choices": ["none", "2:4", "unstructured"]},
        sparsity__zeros={"low": 0.0, "high": 0.9, "when": {"sparsity.mask": "unstructured"}},
        sparsity__mlp_ratio={"choices": [0.0, 0.5]},
    )

    def drawn(mask: str, zeros: float, ratio: float) -> tuple[str, str, float]:
        s = one.decode({"sparsity.mask": mask, "sparsity.zeros": zeros, "sparsity.mlp_ratio": ratio}).sparsity
        return s.method, s.mask, s.zeros

    assert drawn("none", 0.7, 0.0) == ("none", "none", 0.5)
    assert drawn("2:4", 0.7, 0.5) == ("magnitude", "2:4", 0.5)
    assert drawn("unstructured", 0.7, 0.0) == ("none", "unstructured", 0.7)
    assert drawn("unstructured", 0.0, 0.0) == ("none", "none", 0.5)


def test_sparsity_per_block():
    one = space(sparsity__heads_ratio={"choices": [0.0, 0.5], "per_block": True})
    draw = {"sparsity.heads_ratio[1]": 0.5, "sparsity.heads_ratio[2]": 0.0}
    assert one.decode(draw).sparsity.heads == (1, 2)


def test_ratios_of_every_kind_of_unit():
    fixed = {
        "sparsity.qk_ratio": 0.5, "sparsity.v_ratio": 0.3, "sparsity.width_ratio": 0.25,
        "sparsity.blocks_ratio": 0.5,
    }  # fmt: skip
    one = space(fixed).decode({})
    a, kept = one.architecture, one.sparsity
    assert (a.width, a.head_dim, a.depth) == (24, 12, 2)
    assert (kept.qk_dim, kept.v_dim, kept.width, kept.blocks) == (6, 9, 18, 1)


def test_a_budget_is_raised_to_what_is_possible():
    one = space({"sparsity.method": "taylor"}, sparsity__macs_ratio={"low": 0.01, "high": 1.0})
    assert one.decode({"sparsity.macs_ratio": 0.5}).sparsity.macs_ratio == 0.5
    assert one.decode({"sparsity.macs_ratio": 1.0}).sparsity.method == "none"
    least = one.decode({"sparsity.macs_ratio": 0.01})
    assert {(w.heads, w.mlp_units) for w in least.widths} == {(1, 1)}


def test_per_block_axes_are_those_of_the_blocks_that_are_left():
    one = space(
        {"architecture.depth": 4, "tokens.reducer": "evit"},
        sparsity__blocks_ratio={"choices": [0.0, 0.25, 0.5]},
        sparsity__v_ratio={"choices": [0.0, 0.5], "per_block": True},
        precision__weight_bits={"choices": [4, 8], "per_block": True},
    )
    draw = {f"sparsity.v_ratio[{i}]": 0.5 * (i % 2) for i in range(1, 5)}
    draw |= {f"precision.weight_bits[{i}]": 4 + 4 * (i // 2 % 2) for i in range(1, 5)}
    found = one.decode({**draw, "sparsity.blocks_ratio": 0.25})
    assert (found.sparsity.blocks, found.sparsity.v_dim) == (3, (6, 12, 6))
    assert found.precision.weight_bits == (4, 8, 8)
    assert found.tokens == EViT(blocks=(1, 2, 3))
    assert one.decode({**draw, "sparsity.blocks_ratio": 0.0}).sparsity.v_dim == (6, 12, 6, 12)


def test_unknown_names_are_answered_with_the_nearest():
    error = refused("space.fixed.architecture.depht", "not a known setting", {"architecture.depht": 3})
    assert error.remedy == "did you mean 'architecture.depth'?"
    error = refused(
        "space.dimensions.tokens.reduser", "not a known setting", tokens__reduser={"choices": ["none"]}
    )
    assert error.remedy == "did you mean 'tokens.reducer'?"
    assert error.where == "s"
    assert "known settings are" in refused("space.fixed.zzzzzz", "not a known", {"zzzzzz": 3}).remedy


@pytest.mark.parametrize("name", ["architecture.in_chans", "architecture.num_classes"])
def test_what_the_data_set_decides_cannot_be_set(name: str):
    assert refused(f"space.fixed.{name}", "follows from the data set", {name: 3}).remedy == "remove it"
    refused(
        f"space.dimensions.{name}", "follows from the data set", **{name.replace(".", "__"): {"low": 1, "high": 3}}
    )


def test_fixed_and_varying_at_once():
    refused(
        "space.dimensions.architecture.depth",
        "both fixed and a dimension",
        architecture__depth={"low": 1, "high": 2},
    )


def test_conditions_refer_to_what_stands_before():
    late = {"tokens__r": {"low": 1, "high": 2, "when": {"tokens.reducer": "tome"}}}
    field = "space.dimensions.tokens.r.when.tokens.reducer"
    refused(field, "stands before it", **late, tokens__reducer={"choices": ["none", "tome"]})
    refused(field, "stands before it", **late)
    refused(
        field,
        r"must be one of \['none', 'tome'\], but got 'tomme'",
        tokens__reducer={"choices": ["none", "tome"]},
        tokens__r={"low": 1, "high": 2, "when": {"tokens.reducer": "tomme"}},
    )
    refused(
        "space.dimensions.precision.activation_bits.when.precision.weight_bits",
        "per-block",
        precision__weight_bits={"choices": [4, 8], "per_block": True},
        precision__activation_bits={"choices": [8, 32], "when": {"precision.weight_bits": 4}},
    )


def test_only_some_settings_vary_per_block():
    error = refused(
        "space.dimensions.tokens.score",
        "cannot vary per block",
        tokens__score={"choices": ["ats", "entropy"], "per_block": True},
    )
    assert "precision.weight_bits" in error.remedy


@pytest.mark.parametrize("name", ["depth", "width", "heads", "patch_size"])
def test_required_settings(name: str):
    error = refused(f"space.architecture.{name}", "needs a value", without=f"architecture.{name}")
    assert error.remedy == "add it under fixed or dimensions"


def test_image_size_is_required():
    refused("space.fixed.architecture.image_size", "is required; add it", without="architecture.image_size")


def test_a_setting_only_some_choice_needs_is_missed_at_once():
    refused("space.tokens.r", "needs a value", tokens__reducer={"choices": ["none", "tome", "evit"]})


@pytest.mark.parametrize("name", ["depth", "width", "heads", "patch_size", "image_size"])
@pytest.mark.parametrize("value", [0, -1, "six", 2.5, True])
def test_impossible_sizes(name: str, value: Any):
    refused(
        f"space.fixed.architecture.{name}", "must be a whole number of at least 1", {f"architecture.{name}": value}
    )


@pytest.mark.parametrize(
    ("fixed", "field", "match"),
    [
        ({"precision.weight_bits": 9}, "precision.weight_bits", "but got 9"),
        (
            {"sparsity.method": "luck"},
            "sparsity.method",
            "'none', 'magnitude', .* or 'wdpruning', but got 'luck'",
        ),
        ({"sparsity.mask": "1:2"}, "sparsity.mask", "should be 'none', '2:4' or 'unstructured', but got '1:2'"),
        ({"sparsity.mask": "unstructured", "sparsity.zeros": 1.0}, "sparsity.zeros", "less than 1, but got 1.0"),
        ({"sparsity.mlp_ratio": 1.0}, "sparsity.mlp_ratio", r"must lie in \[0, 1\), but got 1.0; write"),
        ({"sparsity.heads_ratio": "half"}, "sparsity.heads_ratio", r"must lie in \[0, 1\), but got 'half'; write"),
        ({"sparsity.mlp_ratio": True}, "sparsity.mlp_ratio", r"must lie in \[0, 1\), but got True; write"),
        (
            {"architecture.mlp_ratio": -1.0},
            "architecture.mlp_ratio",
            "greater than 0, but got -1.0; choose a larger",
        ),
        ({"architecture.mlp_ratio": "4"}, "architecture.mlp_ratio", "valid number, but got '4'; write a number"),
        ({"architecture.mlp_ratio": True}, "architecture.mlp_ratio", "valid number, but got True; write a number"),
        ({"architecture.class_token": 1}, "architecture.class_token", "boolean, but got 1; write true or false"),
        (
            {"tokens.reducer": "tom"},
            "tokens.reducer",
            r"must be one of \['ats', .*\], but got 'tom'; did you mean 'tome'",
        ),
        (
            {"tokens.reducer": "tome", "tokens.r": "many"},
            "tokens.r",
            "integer, but got 'many'; write a whole number",
        ),
        ({"tokens.reducer": "tome", "tokens.r": True}, "tokens.r", "integer, but got True; write a whole number"),
        ({"tokens.reducer": "evit", "tokens.keep": 2.0}, "tokens.keep", "but got 2.0; choose a smaller number"),
        (
            {"tokens.reducer": "evit", "tokens.keep": "0.5"},
            "tokens.keep",
            "valid number, but got '0.5'; write a number",
        ),
        (
            {"tokens.reducer": "evit", "architecture.class_token": False, "architecture.pool": "avg"},
            "tokens.reducer",
            "needs a CLS token",
        ),
    ],
)
def test_impossible_fixed_values(fixed: dict[str, Any], field: str, match: str):
    assert refused(f"space.fixed.{field}", match, fixed).where == "s"


def test_sizes_may_be_written_with_a_point():
    one = space({"architecture.width": 48.0, "architecture.depth": 3.0, "architecture.heads": 4.0}).decode({})
    assert (one.architecture.width, one.architecture.depth, one.architecture.heads) == (48, 3, 4)


def test_the_file_stands_in_every_message_when_it_is_known():
    values = {"architecture.image_size": 8, "architecture.depht": 3}
    for spec in (SpaceSpec(fixed=values), SpaceSpec(fixed={"architecture.image_size": 8})):
        with pytest.raises(InputError) as caught:
            SearchSpace(spec, in_chans=1, num_classes=10, where="job.yaml")
        assert caught.value.where == "job.yaml"


def test_impossible_choices_in_the_middle_are_found():
    refused("space.dimensions.precision.weight_bits", "but got 9", precision__weight_bits={"choices": [4, 9, 8]})
    refused(
        "space.dimensions.precision.weight_bits",
        r"but got \(9, 4\)",
        precision__weight_bits={"choices": [4, 9, 8], "per_block": True},
    )


def test_the_page_on_pruning_names_every_ranking_and_setting():
    page = (Path(__file__).parents[3] / "docs" / "pruning.md").read_text(encoding="utf-8")
    text = page.partition("```yaml\n")[2].partition("```")[0]
    one = SearchSpace(
        parse(SpaceSpec, {"name": "page", **yaml.safe_load(text)}, where="pruning.md"), in_chans=3, num_classes=10
    )
    known = {name for name in known_fields() if name.startswith("sparsity.")}
    assert {axis.field for axis in one.dimensions} == known - {"sparsity.macs_ratio"}
    assert all(f"{name.removeprefix('sparsity.')}`" in page for name in known - {"sparsity.method"})
    assert all(f"\n| `{name}` |" in page for name in PRUNERS)
    found = list(random_candidates(one, 60, seed=0))
    assert {c.sparsity.method for c in found} >= {*PRUNERS}
    assert {c.sparsity.mask for c in found} == {"none", "2:4", "unstructured"}


def test_the_space_of_the_page_on_tokens_reaches_every_reducer_and_every_setting():
    page = (Path(__file__).parents[3] / "docs" / "tokens.md").read_text(encoding="utf-8")
    text = page.partition("```yaml\n")[2].partition("```")[0]
    one = SearchSpace(parse(SpaceSpec, yaml.safe_load(text), where="tokens.md"), in_chans=3, num_classes=10)
    reached = {axis.field for axis in one.dimensions}
    for name, rule in TOKEN_RULES.items():
        assert f"`{name}`" in page
        assert {f"tokens.{field}" for field in rule.model_fields} <= reached
    assert {c.tokens.reducer for c in random_candidates(one, 300, seed=0)} == set(TOKEN_RULES)
    assert all(f"`{name}`" in page for name in SCORES)


def test_a_stem_moves_patches_to_powers_of_two():
    one = space(
        {"architecture.image_size": 24, "architecture.patch_embedding": "conv_stem"},
        without="architecture.patch_size",
        architecture__patch_size={"choices": [1, 3, 6, 12]},
    )  # fmt: skip
    found = [one.decode({"architecture.patch_size": p}).architecture.patch_size for p in (1, 3, 6, 12)]
    assert found == [2, 4, 8, 8]
    refused("space.architecture", "choose patch_embedding=linear",
            {"architecture.image_size": 9, "architecture.patch_embedding": "conv_stem"})  # fmt: skip


def test_class_attention_leaves_a_block_before_it():
    one = space(
        without="architecture.depth", architecture__depth={"choices": [1, 3, 4]},
        architecture__class_attention_blocks={"choices": [0, 2]}, sparsity__blocks_ratio={"choices": [0.0, 0.5]},
        tokens__reducer={"choices": ["tome"]}, tokens__r={"low": 1, "high": 2, "per_block": True},
        precision__weight_bits={"choices": [8, 4], "per_block": True},
    )  # fmt: skip
    draw = {"architecture.class_attention_blocks": 2, "sparsity.blocks_ratio": 0.0, "tokens.reducer": "tome"}
    draw |= {f"tokens.r[{i}]": 1 + i % 2 for i in (1, 2, 3, 4)}
    draw |= {f"precision.weight_bits[{i}]": (4, 8)[i % 2] for i in (1, 2, 3, 4)}

    def found(**changes: Any) -> Any:
        return one.decode({**draw, **{f"architecture.{k}": v for k, v in changes.items()}})

    assert found(depth=1).architecture.class_attention_blocks == 0
    assert found(depth=3).architecture.class_attention_blocks == 2
    assert found(depth=4).tokens == ToMe(r=(2, 1), blocks=(1, 2))
    assert found(depth=4).precision.weight_bits == (8, 4, 8, 4)
    half = one.decode({**draw, "architecture.depth": 4, "sparsity.blocks_ratio": 0.5})
    assert half.pruned_architecture.depth == 3


def test_blocks_that_share_weights_draw_one_figure():
    one = space(
        without="architecture.depth", architecture__depth={"choices": [2, 4, 5]},
        architecture__share_blocks={"choices": [1, 2, 3]}, sparsity__blocks_ratio={"choices": [0.0, 0.6]},
        sparsity__heads_ratio={"choices": [0.0, 0.5], "per_block": True},
        precision__weight_bits={"choices": [8, 4], "per_block": True},
    )  # fmt: skip
    draw = {"sparsity.blocks_ratio": 0.0, "architecture.share_blocks": 2, "architecture.depth": 4}
    draw |= {f"precision.weight_bits[{i}]": bits for i, bits in enumerate((8, 4, 4, 8, 8), start=1)}
    draw |= {f"sparsity.heads_ratio[{i}]": ratio for i, ratio in enumerate((0.5, 0.0, 0.0, 0.5, 0.5), start=1)}
    found = one.decode(draw)
    assert (found.precision.weight_bits, found.sparsity.heads) == ((8, 8, 4, 4), (1, 1, 2, 2))
    assert one.decode({**draw, "architecture.share_blocks": 3}).architecture.share_blocks == 4
    assert one.decode({**draw, "architecture.depth": 5}).architecture.share_blocks == 1
    half = one.decode({**draw, "sparsity.blocks_ratio": 0.6})
    assert (half.sparsity.blocks, half.sparsity.heads, half.precision.weight_bits) == (2, 1, 8)


def test_a_reducer_that_follows_cls_is_refused_before_class_attention():
    fixed = {"architecture.class_attention_blocks": 1, "tokens.reducer": "evit"}
    refused(
        "space.fixed.tokens.reducer", "joins them only in the last blocks .* set class_attention_blocks=0", fixed
    )
    both = {"architecture.share_blocks": 2, "architecture.class_attention_blocks": 1}
    refused("space.architecture", "set share_blocks=1 or class_attention_blocks=0", both)


def test_a_reducer_that_leaves_no_grid_is_refused_beside_pooling_branches():
    fixed = {"architecture.pooling_branches": True, "tokens.reducer": "evit"}
    refused("space.fixed.tokens.reducer", "leaves no grid of patches, .* choose grid_pool or none", fixed)


def test_another_number_is_not_guessed_by_its_digits():
    error = refused(
        "space.fixed.precision.activation_bits", "6, 7, 8, 16 or 32, but got 2", {"precision.activation_bits": 2}
    )
    assert error.remedy == "choose one of these"


def test_the_space_of_the_page_on_architectures_reaches_every_one():
    text = (Path(__file__).parents[3] / "docs/architectures.md").read_text(encoding="utf-8")
    written = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])["dimensions"]
    spec = {"name": "s", "fixed": {**FIXED, "architecture.depth": 4}, "dimensions": written}
    one = SearchSpace(parse(SpaceSpec, spec, where="s.yaml"), in_chans=1, num_classes=10)
    found = {" ".join(c.architecture.variants) for c in random_candidates(one, 200, seed=0)}
    kinds = ("", "2 class blocks", "weights x2")
    assert found == {f"{stem} {kind}".strip() for stem in ("", "conv_stem", "spt") for kind in kinds}


def test_figures_that_no_candidate_can_have_are_refused():
    tome = {"tokens.reducer": "tome"}
    refused("space.fixed.tokens.r", r"is 9, .* of 16 \(patch_size=2\) that is 8", {**tome, "tokens.r": 9})
    refused("space.dimensions.tokens.r", "is 10, .* that is 8", tome, tokens__r={"low": 10, "high": 12})
    space({**tome, "tokens.r": 8})
    finer = {"choices": [4, 1]}
    space(
        tome, without="architecture.patch_size", architecture__patch_size=finer, tokens__r={"low": 2, "high": 32}
    )
    named = {"tokens.reducer": "evit", "tokens.keep": 0.5}
    refused(
        "space.fixed.tokens.blocks",
        "names block 3, but no candidate has more than 2",
        {**named, "tokens.blocks": "1,3"},
    )
    space({**named, "tokens.blocks": 3}, without="architecture.depth", architecture__depth={"low": 2, "high": 3})


@pytest.mark.parametrize(("value", "kind"), [([9], "a list"), ({"a": 1}, "a mapping"), (None, "nothing")])
def test_what_is_no_single_value_is_told(value: object, kind: str):
    refused(
        "fixed.tokens.blocks",
        f"must be one number, word, true or false, but got {kind}",
        {"tokens.blocks": value},
    )


@pytest.mark.parametrize(
    ("setting", "value"),
    [("precision.weight_bits", 9), ("precision.activation_bits", 12), ("architecture.depth", 2)],
)
def test_every_value_of_a_range_is_tried(setting, value):
    low = {"precision.weight_bits": 2, "precision.activation_bits": 4, "architecture.depth": 1}[setting]
    dimension = {setting.replace(".", "__"): {"low": low, "high": 16}}
    if setting == "architecture.depth":
        assert (
            space(without="architecture.depth", **dimension).decode({setting: value}).architecture.depth == value
        )
    else:
        refused(f"space.dimensions.{setting}", "should be 1", **dimension)


CLS_LATER = {
    "tokens__reducer": {"choices": ["none", "topk", "tome"]},
    "tokens__score": {"choices": ["entropy", "cls_attention", "magnitude"]},
    "tokens__r": {"low": 0, "high": 4},
}
NO_CLS = {"architecture.class_token": False, "architecture.pool": "avg", "tokens.k": 4}


def test_pairs_of_values_from_the_middle_are_tried():
    refused("space.dimensions.tokens.reducer", "needs a CLS token", NO_CLS, **CLS_LATER)


def test_a_combination_too_rare_to_be_tried_moves_to_the_nearest(monkeypatch):
    monkeypatch.setattr("vitsearch.space.probe.RANDOM_DRAWS", 0)
    found = space(NO_CLS, **CLS_LATER)
    draw = {"tokens.reducer": "topk", "tokens.score": "cls_attention", "tokens.r": 4}
    with pytest.raises(ValueError, match="needs a CLS token"):
        found.decode_as_drawn(draw)
    assert found.decode(draw) == found.decode({**draw, "tokens.score": "entropy"})


@pytest.mark.parametrize(
    ("fixed", "field", "remedy"),
    [
        ({"architecture.heads": 5}, "architecture.heads", "write 4 or 6"),
        ({"architecture.patch_size": 3}, "architecture.patch_size", "write 2 or 4"),
        ({"architecture.share_blocks": 3, "architecture.depth": 4}, "architecture.share_blocks", "write 2 or 4"),
    ],
)
def test_a_fixed_figure_is_not_moved_in_silence(fixed, field, remedy):
    error = refused(f"space.fixed.{field}", "must divide the", fixed)
    assert error.remedy in {remedy, *(f"write {number}" for number in remedy.split()[1::2])}
    assert error.value == fixed[field]


def test_a_fixed_figure_that_some_candidates_can_have_stays():
    found = space(
        {"architecture.heads": 5}, architecture__width={"choices": [24, 40]}, without="architecture.width"
    )
    assert found.decode({"architecture.width": 40}).architecture.heads == 5


@pytest.mark.parametrize(("low", "high"), [(0.5, 3.9), (0, 2.5)])
def test_a_number_of_tokens_is_whole(low, high):
    tome = {"tokens.reducer": "tome"}
    refused("space.dimensions.tokens.r", "should be a valid integer", tome, tokens__r={"low": low, "high": high})


@pytest.mark.parametrize(
    ("fixed", "field"),
    [
        ({"tokens.reducer": "topk", "tokens.k": 500}, "k"),
        ({"tokens.reducer": "diffrate", "tokens.prune": 500, "tokens.merge": 0}, "prune"),
        ({"tokens.reducer": "diffrate", "tokens.prune": 0, "tokens.merge": 500}, "merge"),
    ],
)
def test_more_tokens_than_there_are(fixed, field):
    error = refused(f"space.fixed.tokens.{field}", r"is 500, but .* of 16 \(patch_size=2\) that is 15", fixed)
    assert error.remedy == "write at most 15, or a smaller patch_size"


def test_a_condition_that_never_holds():
    r = {"low": 0, "high": 4, "when": {"tokens.reducer": "evit"}}
    field = "space.dimensions.tokens.r.when.tokens.reducer"
    refused(field, "must be 'tome', as it is fixed", {"tokens.reducer": "tome"}, tokens__r=r)
    depth = {"architecture__depth": {"low": 2, "high": 4}, "tokens__reducer": {"choices": ["none", "evit"]}}
    for wrong in (99, 2.5, "two"):
        late = {**depth["tokens__reducer"], "when": {"architecture.depth": wrong}}
        refused(
            "space.dimensions.tokens.reducer.when.architecture.depth", "values from 2 to 4",
            without="architecture.depth", **{**depth, "tokens__reducer": late},
        )  # fmt: skip


def test_a_value_that_is_missing_where_a_condition_does_not_hold():
    width = {"low": 8, "high": 16, "step": 8, "when": {"architecture.depth": 1}}
    depth = {"choices": [1, 2]}
    fixed = {name: FIXED[name] for name in FIXED if name not in {"architecture.depth", "architecture.width"}}
    spec = {"name": "s", "fixed": fixed, "dimensions": {"architecture.depth": depth, "architecture.width": width}}
    with pytest.raises(InputError, match=r"is needed where its condition .* does not hold") as caught:
        SearchSpace(parse(SpaceSpec, spec, where="s.yaml"), in_chans=1, num_classes=10)
    assert caught.value.field == "space.dimensions.architecture.width"


def test_a_dimension_that_nothing_reads():
    reducers = {"choices": ["none", "tome"]}
    error = refused(
        "space.dimensions.tokens.samples", r"read by no reducer of this space \(none, tome\)", {"tokens.r": 2},
        tokens__reducer=reducers, tokens__samples={"low": 1, "high": 8},
    )  # fmt: skip
    assert error.remedy == "remove it, or add ats to tokens.reducer"
    refused("space.dimensions.sparsity.zeros", "unstructured alone", sparsity__zeros={"choices": [0.2, 0.4]})
    mask = {"choices": ["none", "unstructured"]}
    space(sparsity__mask=mask, sparsity__zeros={"choices": [0.2, 0.4]})


def test_a_step_past_the_end():
    step = {"low": 1, "high": 4, "step": 9}
    refused("space.dimensions.architecture.mlp_ratio.step", "must fit between low and high, 3 apart",
            architecture__mlp_ratio=step)  # fmt: skip


def test_the_space_of_a_stored_study_is_taken_as_it_is():
    """What is refused today may have been searched yesterday: its front can still be read and resumed."""
    reducers = {"choices": ["none", "tome"]}
    dimensions = {
        "tokens.reducer": reducers, "tokens.r": {"low": 0, "high": 4}, "tokens.samples": {"low": 1, "high": 8},
        "precision.weight_bits": {"low": 2, "high": 9},
    }  # fmt: skip
    spec = parse(SpaceSpec, {"name": "s", "fixed": FIXED, "dimensions": dimensions}, where="s.yaml")
    with pytest.raises(InputError):
        SearchSpace(spec, in_chans=1, num_classes=10)
    stored = SearchSpace(spec, in_chans=1, num_classes=10, checked=False)
    draw = {"tokens.reducer": "tome", "tokens.r": 2, "tokens.samples": 3, "precision.weight_bits": 9}
    assert stored.decode(draw) == stored.decode({**draw, "precision.weight_bits": 8})
    assert len(stored.probed) > 100


def test_training_is_a_part_of_the_candidate():
    found = space(
        {"train.mixup": 0.2}, train__lr={"low": 1.0e-4, "high": 1.0e-2, "log": True},
        train__distill__method={"choices": ["none", "soft"]},
        train__distill__alpha={"low": 0.2, "high": 0.8, "when": {"train.distill.method": "soft"}},
    )  # fmt: skip
    draw = {"train.lr": 1e-3, "train.distill.method": "soft", "train.distill.alpha": 0.5}
    assert found.decode(draw).training.settings == {
        "lr": 1e-3, "mixup": 0.2, "distill.method": "soft", "distill.alpha": 0.5,
    }  # fmt: skip
    assert found.decode({**draw, "train.distill.method": "none"}).training.settings == {
        "lr": 1e-3, "mixup": 0.2, "distill.method": "none",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "value", "match"),
    [
        ("train.lr", 0.0, "greater than 0"),
        ("train.distill.alpha", 1.5, "less than or equal to 1"),
        ("train.distill.method", "softt", "'none', 'soft', 'hard' or 'deit'"),
        ("train.epochs", 3, "not a known setting"),
    ],
)
def test_impossible_training(setting, value, match):
    refused(f"space.fixed.{setting}", match, {setting: value})


@pytest.mark.parametrize("name", ["image_size", "depth", "width", "heads", "patch_size"])
def test_a_figure_that_no_architecture_has_is_refused_before_anything_is_made_of_it(name: str):
    refused(f"space.fixed.architecture.{name}", "at most|less than", {f"architecture.{name}": 10**12})
