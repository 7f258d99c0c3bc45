import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.unit.candidate.factory import MICRO, micro
from vitsearch.candidate import Candidate, NoReduction, Precision, Sparsity, load_candidate
from vitsearch.errors import InputError

# (name, two spellings of one model)
SAME: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("tome r=0", {"tokens": {"reducer": "tome", "r": 0}}, {}),
    ("ppt r=0", {"tokens": {"reducer": "ppt", "r": 0}}, {"tokens": {"reducer": "none"}}),
    ("evit keep=1", {"tokens": {"reducer": "evit", "keep": 1.0}}, {}),
    ("evit that keeps all 16", {"tokens": {"reducer": "evit", "keep": 0.95, "fuse": True}}, {}),
    (
        "tome blocks",
        {"tokens": {"reducer": "tome", "r": 2}},
        {"tokens": {"reducer": "tome", "r": 2, "blocks": [1, 2, 3, 4], "schedule": "constant"}},
    ),
    (
        "tome in one block",
        {"tokens": {"reducer": "tome", "r": 2, "blocks": [3], "schedule": "decreasing"}},
        {"tokens": {"reducer": "tome", "r": 2, "blocks": [3]}},
    ),
    (
        "evit blocks",
        {"tokens": {"reducer": "evit"}},
        {"tokens": {"reducer": "evit", "keep": 0.7, "blocks": [2, 3, 4]}},
    ),
    (
        "ppt blocks",
        {"tokens": {"reducer": "ppt", "r": 3}},
        {"tokens": {"reducer": "ppt", "r": 3, "tau": 7e-5, "blocks": [2, 3, 4]}},
    ),
    (
        "weight bits per block",
        {"precision": {"weight_bits": [8, 8, 8, 8]}},
        {"precision": {"weight_bits": 8}},
    ),
    (
        "activation bits per block",
        {"precision": {"activation_bits": [8, 8, 8, 8]}},
        {"precision": {"activation_bits": 8}},
    ),
    (
        "calibration where nothing is calibrated",
        {"precision": {"weight_bits": 4, "calibration": "mse"}},
        {"precision": {"weight_bits": 4}},
    ),
    ("sparsity keeping all", {"sparsity": {"method": "magnitude", "mlp_units": 128, "heads": 4}}, {}),
    ("a method with nothing to prune", {"sparsity": {"method": "magnitude"}}, {}),
    (
        "sparsity per block",
        {"sparsity": {"method": "magnitude", "mlp_units": [64, 64, 64, 64], "heads": [4, 4, 4, 4]}},
        {"sparsity": {"method": "magnitude", "mlp_units": 64}},
    ),
    ("whole-number ratio", {"architecture": {"mlp_ratio": 4}}, {"architecture": {"mlp_ratio": 4.0}}),
    ("ratios of equal units", {"architecture": {"mlp_ratio": 4.01}}, {"architecture": {"mlp_ratio": 4.0}}),
]


@pytest.mark.parametrize(("one", "other"), [pytest.param(a, b, id=name) for name, a, b in SAME])
def test_spellings_of_one_model_hash_equally(one: dict[str, Any], other: dict[str, Any]):
    assert micro(**one).canonical() == micro(**other).canonical()
    assert micro(**one).canonical_json() == micro(**other).canonical_json()
    assert micro(**one).hash == micro(**other).hash


DIFFERENT: list[dict[str, Any]] = [
    {},
    *({"architecture": change} for change in (
        {"image_size": 16}, {"in_chans": 3}, {"num_classes": 9}, {"patch_size": 4}, {"depth": 3}, {"width": 64},
        {"heads": 2}, {"mlp_ratio": 3.0}, {"pool": "avg"}, {"class_token": False, "pool": "avg"},
        {"distilled": True}, {"pre_norm": True}, {"patch_bias": False}, {"layer_scale": True},
    )),
    *({"tokens": tokens} for tokens in (
        {"reducer": "tome", "r": 1}, {"reducer": "tome", "r": 2}, {"reducer": "tome", "r": 2, "blocks": [1, 2]},
        {"reducer": "tome", "r": 2, "schedule": "decreasing"},
        {"reducer": "tome", "r": 2, "schedule": "increasing"},
        {"reducer": "evit", "keep": 0.7}, {"reducer": "evit", "keep": 0.5}, {"reducer": "evit", "fuse": False},
        {"reducer": "evit", "blocks": [1]},
        {"reducer": "evit", "keep": 0.9, "blocks": [1]},  # as many tokens as before, but one of them is fused
        {"reducer": "ppt", "r": 2}, {"reducer": "ppt", "r": 2, "tau": 0.1},
        {"reducer": "ppt", "r": 2, "blocks": [1]},
    )),
    *({"sparsity": {"method": "magnitude", **sparsity}} for sparsity in (
        {"mlp_units": 64}, {"heads": 2}, {"mlp_units": [64, 64, 64, 63]}, {"heads": [2, 4, 4, 4]},
        {"qk_dim": 4}, {"v_dim": 4}, {"width": 16}, {"blocks": 2}, {"blocks": 2, "heads": [4, 2]},
        {"qk_dim": [4, 8, 8, 8]}, {"v_dim": [4, 8, 8, 8]}, {"blocks": 3, "v_dim": [4, 8, 8]},
    )),
    *({"precision": precision} for precision in (
        {"weight_bits": 8}, {"activation_bits": 8}, {"weight_bits": [8, 8, 8, 4]}, {"weight_bits": [4, 8, 8, 8]},
        {"activation_bits": 8, "calibration": "mse"}, {"activation_bits": 8, "calibration": "percentile"},
    )),
]  # fmt: skip


def test_different_models_hash_differently():
    hashes = [micro(**parts).hash for parts in DIFFERENT]
    assert len(set(hashes)) == len(DIFFERENT)


def test_the_hash_never_changes():
    """Stored studies and caches find their models by it; a change here orphans them."""
    candidate = micro(
        tokens={"reducer": "tome", "r": 2},
        sparsity={"method": "magnitude", "mlp_units": 96},
        precision={"weight_bits": [8, 8, 4, 4], "activation_bits": 8},
    )
    assert candidate.canonical_json() == (
        '{"architecture":{"class_token":true,"depth":4,"distilled":false,"heads":4,"image_size":8,"in_chans":1,'
        '"layer_scale":false,"mlp_ratio":4.0,"num_classes":10,"patch_bias":true,"patch_size":2,"pool":"token",'
        '"pre_norm":false,"width":32},"precision":{"activation_bits":8,"calibration":"minmax","quantizer":"uniform",'
        '"weight_bits":[8,8,4,4]},"sparsity":{"heads":null,"method":"magnitude","mlp_units":96},'
        '"tokens":{"blocks":[1,2,3,4],"r":2,"reducer":"tome","schedule":"constant"}}'
    )
    assert candidate.hash == "c1f09c0322c21346"
    assert re.fullmatch("[0-9a-f]{16}", candidate.hash)


def test_canonical_is_a_fixed_point():
    for parts in DIFFERENT:
        once = micro(**parts).canonical()
        assert once.canonical() == once


def test_a_candidate_is_frozen_through_and_through():
    candidate = micro()
    with pytest.raises(ValidationError):
        candidate.tokens = NoReduction()  # type: ignore[misc]
    with pytest.raises(ValidationError):
        candidate.architecture.depth = 3  # type: ignore[misc]
    assert candidate == micro()
    assert len({candidate, micro()}) == 1


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"tokens": {"reducer": "tome", "r": 9}}, "at most .* = 8, but got r=9; lower r"),
        ({"tokens": {"reducer": "ppt", "r": 9}}, "at most .* = 8, but got r=9; lower r"),
        (
            {"tokens": {"reducer": "tome", "r": 1, "blocks": [5]}},
            r"within 1..depth, but got blocks=\[5\], depth=4",
        ),
        ({"tokens": {"reducer": "evit", "blocks": [2, 2]}}, "must ascend"),
        ({"tokens": {"reducer": "ppt", "r": 2, "blocks": [3, 1]}}, "must ascend"),
        ({"tokens": {"reducer": "tome", "r": 1, "blocks": []}}, "at least 1 item"),
        ({"tokens": {"reducer": "evit", "keep": 0}}, "greater than 0"),
        ({"tokens": {"reducer": "evit", "keep": 1.1}}, "less than or equal to 1"),
        ({"sparsity": {"method": "magnitude", "mlp_units": 129}}, "sparsity.mlp_units must be at most 128"),
        (
            {"sparsity": {"method": "magnitude", "heads": [4, 4, 4, 5]}},
            "sparsity.heads must be at most 4, but got 5",
        ),
        ({"sparsity": {"method": "magnitude", "heads": [4, 4, 4]}}, "one figure per block, but got 3 for depth=4"),
        ({"sparsity": {"method": "magnitude", "heads": 0}}, "greater than or equal to 1"),
        ({"sparsity": {"method": "magnitude", "qk_dim": 9}}, "sparsity.qk_dim must be at most 8, but got 9"),
        ({"sparsity": {"method": "magnitude", "v_dim": [8, 8, 9, 8]}}, "sparsity.v_dim must be at most 8"),
        ({"sparsity": {"method": "magnitude", "width": 33}}, "sparsity.width must be at most 32, but got 33"),
        ({"sparsity": {"method": "magnitude", "blocks": 5}}, "sparsity.blocks must be at most 4, but got 5"),
        (
            {"sparsity": {"method": "magnitude", "blocks": 3, "heads": [4] * 4}},
            "one figure per block, but got 4 for depth=3",
        ),
        (
            {"sparsity": {"method": "magnitude", "blocks": 3}, "precision": {"weight_bits": [8] * 4}},
            "one figure per block, but got 4 for depth=3",
        ),
        (
            {"sparsity": {"method": "magnitude", "blocks": 3}, "tokens": {"reducer": "evit", "blocks": [4]}},
            r"within 1..depth, but got blocks=\[4\], depth=3",
        ),
        ({"sparsity": {"blocks": 3}}, "sparsity.method must be named"),
        ({"sparsity": {"mlp_units": 64}}, "sparsity.method must be named"),
        ({"precision": {"weight_bits": [8, 8]}}, "precision.weight_bits must have one figure per block"),
        ({"precision": {"activation_bits": [8] * 5}}, "but got 5 for depth=4"),
        ({"precision": {"weight_bits": []}}, "must not be empty"),
        ({"precision": {"weight_bits": 9}}, "Input should be 1, 2"),
        ({"precision": {"activation_bits": 3}}, "Input should be 1, 4, 5"),
    ],
)
def test_impossible_candidates(parts: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        micro(**parts)


@pytest.mark.parametrize("reducer", [{"reducer": "evit"}, {"reducer": "ppt", "r": 2}])
def test_reducers_that_score_by_cls_need_one(reducer: dict[str, Any]):
    with pytest.raises(ValidationError, match="needs a CLS token"):
        micro({"class_token": False, "pool": "avg"}, tokens=reducer)


def test_round_trip_through_a_file(tmp_path: Path):
    for parts in DIFFERENT:
        candidate = micro(**parts).canonical()
        path = tmp_path / "candidate.json"
        path.write_text(candidate.model_dump_json(), encoding="utf-8")
        assert load_candidate(path) == candidate


def test_a_loaded_candidate_is_canonical(tmp_path: Path):
    path = tmp_path / "candidate.json"
    path.write_text(json.dumps({"architecture": MICRO, "tokens": {"reducer": "tome", "r": 0}}), encoding="utf-8")
    assert load_candidate(path) == Candidate(architecture=micro().architecture)


@pytest.mark.parametrize(
    ("parts", "field", "message"),
    [
        ({"tokens": {"reducer": "tome", "r": 1, "bloks": [1]}}, "tokens.bloks", "did you mean 'blocks'"),
        ({"tokens": {"reducer": "tome"}}, "tokens.r", "is required; add it"),
        ({"tokens": {"reducer": "tom"}}, "tokens.reducer", "'evit', 'ppt'.* but got 'tom'; did you mean 'tome'"),
        ({"tokens": {"r": 1}}, "tokens.reducer", "is required"),
        ({"precision": {"weight_bits": 9}}, "precision.weight_bits", "16 or 32, but got 9"),
        ({"architecture": {**MICRO, "heads": 3}}, "architecture", "heads=3; choose heads from"),
        ({"architecture": {**MICRO, "depht": 3}}, "architecture.depht", "did you mean 'depth'"),
        ({"sparsity": {"method": "magnitude", "heads": [1]}}, "", "one figure per block"),
    ],
)
def test_errors_in_a_file_name_the_field(tmp_path: Path, parts: dict[str, Any], field: str, message: str):
    path = tmp_path / "candidate.json"
    path.write_text(json.dumps({"architecture": MICRO, **parts}), encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        load_candidate(path)
    assert caught.value.field == field
    assert caught.value.where == str(path)


@pytest.mark.parametrize("text", ["", "[1]", "null", "{"])
def test_files_that_hold_no_candidate(tmp_path: Path, text: str):
    path = tmp_path / "candidate.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="must"):
        load_candidate(path)


def test_summary_says_what_differs_from_dense():
    assert micro().summary() == "d4 w32 h4 p2 m4"
    assert (
        micro(
            tokens={"reducer": "tome", "r": 3},
            sparsity={"method": "magnitude", "mlp_units": 96, "heads": [2, 4, 4, 4]},
            precision={"weight_bits": 8, "activation_bits": [4, 4, 8, 8]},
        ).summary()
        == "d4 w32 h4 p2 m4 · tome r=3 · mlp 75% · heads 88% · W8A6"
    )


def test_defaults_are_the_identity():
    candidate = micro()
    assert (candidate.tokens, candidate.sparsity, candidate.precision) == (NoReduction(), Sparsity(), Precision())
    assert candidate.precision.is_float32
