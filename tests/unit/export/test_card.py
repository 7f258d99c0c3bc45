import contextlib
import io
import re
import shutil

import pytest
from PIL import Image

from tests.unit.export.factory import EACH_CANDIDATE, PROFILE
from vitsearch.candidate import Sparsity
from vitsearch.config import EerSpec, TrainSpec
from vitsearch.export.card import model_card


def snippets(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)


def printed_by(code: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "snippet", "exec"), {"__name__": "__main__"})  # noqa: S102  # what a reader would paste
    return out.getvalue()


def card_of(bundle, notes="", class_names=None, **changes) -> str:
    preprocess = bundle.preprocess
    if class_names:
        preprocess = preprocess.model_copy(update={"class_names": class_names})
    metrics = bundle.metrics.model_copy(update=changes)
    return model_card(bundle.candidate, preprocess, metrics, weights_file_mb=0.2, notes=notes)


@pytest.mark.parametrize("name", EACH_CANDIDATE)
def test_the_snippets_run_and_agree(name, bundle_of, data, tmp_path, monkeypatch):
    bundle = bundle_of(name)
    shutil.copytree(bundle.folder, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    with_vitsearch, without = snippets((bundle.folder / "MODEL_CARD.md").read_text())
    for index in data.val[:5]:
        Image.fromarray(data.images_NHWC[index, ..., 0]).save("image.png")
        [expected] = bundle.predict("image.png")
        assert printed_by(with_vitsearch) == f"{expected.class_name} {round(expected.probability, 4)}\n"
        assert printed_by(without) == f"{expected.class_name}\n"


def test_the_snippet_without_vitsearch_crops_and_shrinks_alike(bundle_of, tmp_path, monkeypatch, data):
    bundle = bundle_of("dense")
    shutil.copytree(bundle.folder, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    _, without = snippets((bundle.folder / "MODEL_CARD.md").read_text())
    for index in data.val[5:10]:
        large = Image.fromarray(data.images_NHWC[index, ..., 0]).resize((61, 40), Image.Resampling.BICUBIC)
        large.save("image.png")
        scope: dict[str, object] = {}
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(without, "snippet", "exec"), scope)  # noqa: S102
        [prediction] = bundle.predict("image.png")
        assert int(scope["logits"][0].argmax()) == prediction.label


def test_what_a_reader_must_know_is_there(bundle_of, data):
    card = (bundle_of("dense").folder / "MODEL_CARD.md").read_text()
    for text in (
        "trial 12 of study digits-demo", "one of 10 classes: `0`, `1`", data.fingerprint,
        f"{len(data.train)} training", "90.00 %", "validation accuracy, which is therefore optimistic",
        "has not seen the test images", "ViT-B/16", "**EER", "FLOPs (MACs)", "pytorch 2.9", "30 (5)",
        "Nothing: weights and activations are float32", "vitsearch predict . image.png",
    ):  # fmt: skip
        assert text in card, text


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        ({"mask": "2:4"}, r"two of every four"),
        ({"mask": "unstructured", "zeros": 0.625}, r"62.5 % of the weights"),
    ],
)
def test_zeros_are_no_gain_on_a_stock_runtime(bundle_of, mask, said):
    bundle = bundle_of("dense")
    candidate = bundle.candidate.model_copy(update={"sparsity": Sparsity.model_validate(mask)})
    card = model_card(candidate, bundle.preprocess, bundle.metrics, weights_file_mb=0.2)
    simulated = card.partition("## What is simulated")[2].partition("\n## ")[0]
    assert re.search(said, simulated)
    assert "a stock runtime does not profit" in simulated
    assert "stock runtime" not in card_of(bundle)


def test_simulated_bits_stand_beside_latency(bundle_of):
    card = (bundle_of("tome_w8a8_pruned").folder / "MODEL_CARD.md").read_text()
    assert "weights at 8 bits and activations at 8 bits" in card
    assert "never in latency" in card


def test_a_runtime_of_integers_is_told_from_simulation(bundle_of):
    bundle = bundle_of("tome_w8a8_pruned")
    conditions = PROFILE.conditions.model_copy(update={"runtime": "onnxruntime_int8_qdq 1.2", "dtype": "int8"})
    more = {"others": (PROFILE,), "failed": {"pytorch_bf16": "RuntimeError: no kernel"}}
    integers = PROFILE.model_copy(update={"conditions": conditions, "accuracy": 0.8125, **more})
    card = card_of(bundle, profiles=(integers,))
    assert "The fastest runtime on local is onnxruntime_int8_qdq 1.2." in card
    assert "pytorch_bf16 could not be measured on local: RuntimeError: no kernel." in card
    assert card.count("| local |") == 2
    assert "81.25 %" in card
    assert "linear layers ran on 8-bit integers" in card
    assert "8-bit integers" not in card_of(bundle)


def test_the_test_accuracy_appears_only_after_retraining(bundle_of):
    card = card_of(bundle_of("dense"), accuracy_test=0.875)
    assert "87.50 %" in card
    assert "this bundle's weights, retrained" in card
    assert "read once" in card
    assert "has not seen" not in card


def test_without_measurements_it_says_so(bundle_of):
    assert "## Latency\n\nNot measured." in card_of(bundle_of("dense"), profiles=())


def test_eer_names_its_kind(bundle_of):
    weighted = EerSpec(weights=(0.25, 0.25, 0.25, 0.25))
    assert "Weighted EER" in card_of(bundle_of("dense"), eer=weighted)
    assert "1/4 of the scale" in card_of(bundle_of("dense"), eer=weighted)
    assert "is unknown, because a metric in it was not measured" in card_of(bundle_of("dense"), eer_pct=None)


def test_broken_files_bounded_cost_and_ties_are_told(bundle_of):
    bundle = bundle_of("dense")
    cost = bundle.metrics.cost.model_copy(update={"kind": "bounded"})
    check = bundle.metrics.onnx_check.model_copy(update={"agreement": 0.99})
    card = card_of(bundle, num_skipped=3, cost=cost, onnx_check=check, num_val=0)
    assert "3 broken files were left out" in card
    assert "FLOPs are the least that one can need" in card
    assert "two runtimes can name different classes" in card
    assert "unknown points" in card


def test_names_cannot_break_the_markdown(bundle_of):
    names = ("a`b", "`", "c|d\n# e", "<script>", "", *"fghij")
    card = card_of(bundle_of("dense"), class_names=names)
    assert "``a`b``, `` ` ``, `c|d # e`, `<script>`" in card
    assert "A\\|B &lt;processor>" in card  # the processor's name in a table
    assert "\n# e" not in card


def test_many_classes_are_cut_and_notes_end_the_card(bundle_of):
    card = card_of(bundle_of("dense"), class_names=tuple(f"c{i}" for i in range(60)), notes="Made for a test.\n")
    assert "`c49`, and 10 more" in card
    assert card.endswith("## Notes\n\nMade for a test.\n")


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ({}, "epochs from random initialisation with recipe `plain` (adamw, "),
        ({}, "study seed 3. `metrics.json` holds the whole recipe."),
        (
            {"init": "pretrained", "pretrained": {"timm": "vit_tiny_patch16_224"}},
            "epochs from the weights of timm's `vit_tiny_patch16_224` with recipe",
        ),
        (
            {"init": "pretrained", "pretrained": {"bundle": "/home/me/flowers/"}},
            "epochs from the weights of the bundle `flowers` with recipe",
        ),
        (
            {"distill": {"method": "soft", "inner": "tokens", "teacher": {
                "timm": "resnet18", "checkpoint": "https://HOST/a/r18.pth?token=geheim"}}},
            " It was taught by timm's `resnet18` with the checkpoint `r18.pth` (`soft`, `tokens`). `metrics",
        ),
        (
            {"distill": {"method": "co_advise", "teacher": {"timm": "a"}, "second_teacher": {"timm": "b"}}},
            " It was taught by timm's `a` and timm's `b` (`co_advise`). ",
        ),
        (
            {"distill": {"inner": "smkd"}},
            " It was taught by the moving average of its own weights (`smkd`). ",
        ),
        ({"pretrained": {"timm": "a"}, "distill": {"teacher": {"timm": "b"}}}, "random initialisation"),
    ],
)  # fmt: skip
def test_the_start_and_the_teachers_are_named(bundle_of, train, said):
    card = card_of(bundle_of("dense"), train=TrainSpec.model_validate(train))
    assert said in card, re.findall(r".* epochs from .*", card)
    assert "/home/me" not in card
    assert "geheim" not in card
    assert ("taught" in card) == ("taught" in said)
