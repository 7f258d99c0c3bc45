import pytest

from tests.unit.candidate.factory import micro
from vitsearch.candidate import BlockWidths, Sparsity

A = micro().architecture  # 4 blocks, width 32, 4 heads of 8, 128 units


def test_half_pruned_settings_keep_the_other_open():
    full = Sparsity(method="magnitude", mlp_units=(64, 128, 128, 128), heads=4).resolved(A)
    assert full == Sparsity(method="magnitude", mlp_units=(64, 128, 128, 128), heads=None)
    assert [block.heads for block in full.widths(A)] == [4, 4, 4, 4]


def test_widths_are_those_of_the_blocks_that_are_left():
    sparsity = Sparsity(method="magnitude", blocks=2, width=20, heads=3, qk_dim=(8, 2), v_dim=5, mlp_units=(7, 9))
    assert sparsity.widths(A) == (
        BlockWidths(width=20, heads=3, qk_dim=8, v_dim=5, mlp_units=7),
        BlockWidths(width=20, heads=3, qk_dim=2, v_dim=5, mlp_units=9),
    )
    assert (sparsity.widths(A)[1].qk_width, sparsity.widths(A)[1].v_width) == (6, 15)
    assert sparsity.pruned_architecture(A) == A.model_copy(update={"depth": 2})
    assert Sparsity().pruned_architecture(A) is A


@pytest.mark.parametrize(
    "everything", [{"qk_dim": 8}, {"v_dim": (8,) * 4}, {"width": 32}, {"blocks": 4}, {"blocks": 4, "heads": 4}]
)
def test_keeping_everything_is_no_sparsity(everything: dict[str, object]):
    assert Sparsity.model_validate({"method": "magnitude", **everything}).resolved(A) == Sparsity()


def test_fields_younger_than_stored_studies_are_written_only_when_they_say_something():
    assert Sparsity(method="magnitude", heads=2).model_dump() == {
        "method": "magnitude", "mlp_units": None, "heads": 2,
    }  # fmt: skip
    assert Sparsity(method="magnitude", blocks=2).model_dump(mode="json")["blocks"] == 2
    again = Sparsity.model_validate_json(Sparsity(method="magnitude", v_dim=(1, 2, 3, 4)).model_dump_json())
    assert again.v_dim == (1, 2, 3, 4)


def test_a_schedule_counts_only_where_something_is_pruned_in_steps():
    once = Sparsity(method="magnitude", heads=2, schedule="cubic").resolved(A)
    assert once == Sparsity(method="magnitude", heads=2)
    assert Sparsity(method="magnitude", steps=4, schedule="cubic").resolved(A) == Sparsity()
    twice = Sparsity(method="magnitude", heads=2, steps=2, schedule="cubic").resolved(A)
    assert (twice.steps, twice.schedule) == (2, "cubic")


def test_the_summary_tells_what_is_left():
    one = micro(sparsity={"method": "magnitude", "blocks": 2, "width": 24, "qk_dim": 4, "v_dim": (6, 2)})
    assert one.summary() == "d4 w32 h4 p2 m4 · blocks 50% · width 75% · qk 50% · v 50%"


@pytest.mark.parametrize(
    ("architecture", "sparsity", "message"),
    [
        ({"share_blocks": 2}, {"heads": (2, 2, 1, 2)}, r"heads must be the same .* \[1, 2\] for blocks 3 to 4"),
        ({"share_blocks": 2}, {"mlp_units": (9, 8, 8, 8)}, r"mlp_units .* architecture.share_blocks=1"),
        ({"share_blocks": 2}, {"blocks": 3}, "multiple of architecture.share_blocks, .* choose 2"),
        (
            {"share_blocks": 2},
            {"macs_ratio": 0.5},
            "macs_ratio decides block by block, .* name heads and mlp_units",
        ),
        ({"class_attention_blocks": 2}, {"blocks": 2}, "got blocks=2; choose at least 3"),
    ],
)
def test_what_blocks_that_belong_together_refuse(
    architecture: dict[str, object], sparsity: dict[str, object], message: str
):
    with pytest.raises(ValueError, match=message):
        Sparsity.model_validate({"method": "magnitude", **sparsity}).resolved(A.model_copy(update=architecture))


def test_blocks_that_share_weights_may_differ_from_others():
    one = Sparsity(method="magnitude", heads=(2, 2, 1, 1), blocks=4)
    assert one.resolved(A.model_copy(update={"share_blocks": 2})).heads == (2, 2, 1, 1)


def test_widths_tell_class_attention_and_mixed_heads():
    cait = A.model_copy(update={"class_attention_blocks": 2, "distilled": True})
    pruned = Sparsity(method="magnitude", blocks=3)
    assert [w.class_tokens for w in pruned.widths(cait)] == [0, 2, 2]
    assert [w.mixes_heads for w in pruned.widths(A.model_copy(update={"share_blocks": 2}))] == [True] * 3


@pytest.mark.parametrize(
    ("spelt", "canonical"),
    [
        ({"mask": "2:4", "zeros": 0.7}, {"mask": "2:4"}),
        ({"mask": "2:4", "steps": 3, "schedule": "cubic"}, {"mask": "2:4"}),
        ({"method": "taylor", "mask": "2:4", "heads": 4}, {"mask": "2:4"}),
        ({"mask": "unstructured", "zeros": 0.0}, {}),
        ({"method": "taylor", "zeros": 0.9}, {}),
        (
            {"method": "taylor", "mask": "unstructured", "zeros": 0.9, "steps": 2},
            {"mask": "unstructured", "zeros": 0.9, "steps": 2},
        ),
        ({"method": "taylor", "heads": 2, "zeros": 0.9}, {"method": "taylor", "heads": 2}),
        (
            {"method": "taylor", "heads": 2, "mask": "2:4", "steps": 2},
            {"method": "taylor", "heads": 2, "mask": "2:4", "steps": 2},
        ),
    ],
    ids=str,
)
def test_masks_have_one_canonical_form(spelt: dict[str, object], canonical: dict[str, object]):
    assert Sparsity.model_validate(spelt).resolved(A) == Sparsity.model_validate(canonical)


def test_a_mask_is_written_only_where_there_is_one():
    assert "mask" not in Sparsity(method="magnitude", heads=2).model_dump()
    assert Sparsity.model_validate_json(Sparsity(mask="unstructured", zeros=0.3).model_dump_json()).zeros == 0.3
    assert micro(sparsity={"mask": "2:4"}).summary() == "d4 w32 h4 p2 m4 · 2:4"
    one = micro(sparsity={"method": "magnitude", "heads": 2, "mask": "unstructured", "zeros": 0.75})
    assert one.summary() == "d4 w32 h4 p2 m4 · heads 50% · zeros 75%"
    assert len({one.hash, micro(sparsity={"method": "magnitude", "heads": 2}).hash, micro().hash}) == 3
