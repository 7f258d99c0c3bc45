"""The model card: what a stranger must know before using the model."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vitsearch.candidate import Candidate, Sparsity
from vitsearch.config import DistillSpec, NetworkSpec
from vitsearch.config.addresses import name_of
from vitsearch.cost.eer import reference_value
from vitsearch.export.contents import (
    CARD_FILE,
    INT8_FILE,
    METRICS_FILE,
    ONNX_FILE,
    PREPROCESS_FILE,
    BundleMetrics,
    Preprocess,
)
from vitsearch.messages import Profile
from vitsearch.trial import CANDIDATE_FILE, WEIGHTS_FILE

MAX_LISTED_CLASSES = 50

PYTHON_SNIPPET = """\
import vitsearch

bundle = vitsearch.load(".")
for prediction in bundle.predict("image.png"):
    print(prediction.class_name, round(prediction.probability, 4))
"""

ONNX_SNIPPET = """\
import json

import numpy as np
import onnxruntime
from PIL import Image

with open("preprocess.json", encoding="utf-8") as file:
    preprocess = json.load(file)
size = preprocess["image_size"]
with Image.open("image.png") as image:
    image = image.convert("L" if preprocess["in_chans"] == 1 else "RGB")
    short = min(image.size)
    left, top = (image.width - short) / 2, (image.height - short) / 2
    box = (left, top, left + short, top + short)
    image = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
pixels = np.asarray(image, dtype=np.float32).reshape(1, size, size, -1) / 255
pixels = (pixels - np.float32(preprocess["mean"])) / np.float32(preprocess["std"])
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
logits = session.run(["logits"], {"images": pixels.transpose(0, 3, 1, 2)})[0]
print(preprocess["class_names"][int(logits[0].argmax())])
"""


def model_card(
    candidate: Candidate,
    preprocess: Preprocess,
    metrics: BundleMetrics,
    *,
    weights_file_mb: float,
    notes: str = "",
) -> str:
    """The card as Markdown."""
    sections = [
        _title(candidate, preprocess, metrics),
        ("Intended use", _intended(preprocess)),
        ("Training", _training(metrics)),
        ("Accuracy", _accuracy(metrics)),
        ("Cost", _cost(metrics, weights_file_mb)),
        ("Latency", _latency(metrics)),
        ("What is simulated", _simulated(candidate.sparsity, metrics, weights_file_mb)),
        ("How to use", _usage(metrics)),
        ("Limits", _limits(metrics)),
        ("Notes", notes.strip()),
    ]
    texts = [part if isinstance(part, str) else f"## {part[0]}\n\n{part[1]}" for part in sections if part[1]]
    return "\n\n".join(texts) + "\n"


def _title(candidate: Candidate, preprocess: Preprocess, metrics: BundleMetrics) -> str:
    a = candidate.architecture
    return (
        f"# Image classifier, trial {metrics.trial} of study {_plain(metrics.study)}\n\n"
        f"A Vision Transformer that vitsearch {metrics.versions.vitsearch} found, trained and compressed: "
        f"{a.depth} blocks of width {a.width} with {a.heads} heads, patches of {a.patch_size} x {a.patch_size} "
        f"pixels, images of {preprocess.image_size} x {preprocess.image_size} pixels, "
        f"{'grey' if preprocess.in_chans == 1 else 'colour'}. "
        f"In short: `{candidate.summary()}`; candidate `{metrics.candidate_hash}`.\n\n"
        + _table(
            ("file", "what it is"),
            [
                (f"`{WEIGHTS_FILE}`", "weights in their final form, float32"),
                (f"`{CANDIDATE_FILE}`", "the network's description"),
                (f"`{PREPROCESS_FILE}`", "size, channels, normalisation, class names"),
                (f"`{METRICS_FILE}`", "every figure of this card, for programs"),
                (f"`{ONNX_FILE}`", "the same network for ONNX Runtime"),
                *([(f"`{INT8_FILE}`", "the same in 8-bit integers, for ONNX Runtime")] if metrics.int8 else []),
                (f"`{CARD_FILE}`", "this text"),
            ],
        )
    )


def _intended(preprocess: Preprocess) -> str:
    names = preprocess.class_names
    listed = ", ".join(_code(name) for name in names[:MAX_LISTED_CLASSES])
    rest = len(names) - MAX_LISTED_CLASSES
    more = f", and {rest} more in `{PREPROCESS_FILE}`" if rest > 0 else ""
    return (
        f"It assigns an image to one of {len(names)} classes: {listed}{more}.\n\n"
        "It is meant for images like those it was trained on: from the same source, each showing one of these."
    )


def _training(metrics: BundleMetrics) -> str:
    skipped = f" {metrics.num_skipped} broken files were left out." if metrics.num_skipped else ""
    recipe = metrics.train
    start = "random initialisation"
    if recipe.init == "pretrained" and recipe.pretrained is not None:
        start = f"the weights of {_network(recipe.pretrained)}"
    return (
        f"{metrics.num_train} training, {metrics.num_val} validation and {metrics.num_test} test images; "
        f"fingerprint of images, labels and split: `{metrics.data_fingerprint}`.{skipped}\n\n"
        f"{metrics.epochs} epochs from {start} with recipe `{recipe.recipe}` ({recipe.optimizer}, "
        f"peak learning rate {recipe.lr:g}, batch {recipe.batch_size}), study seed {metrics.seed}."
        f"{_teaching(recipe.distill)} `{METRICS_FILE}` holds the whole recipe."
    )


def _teaching(distill: DistillSpec) -> str:
    text = ""
    if distill.is_active or distill.inner_weights:
        teachers = [_network(one) for one in (distill.teacher, distill.second_teacher) if one is not None]
        ways = dict.fromkeys([distill.method, *distill.inner_weights])
        named = ", ".join(_code(way) for way in ways if way != "none")
        text += f" It was taught by {' and '.join(teachers)} ({named})."
    if distill.self_weight:
        text += " It was taught by the moving average of its own weights (`smkd`)."
    return text


def _network(network: NetworkSpec) -> str:
    """What people call it, without folders and servers of whoever trained."""
    if network.bundle is not None:
        return f"the bundle {_code(name_of(network.bundle))}"
    own = "" if network.checkpoint is None else f" with the checkpoint {_code(name_of(network.checkpoint))}"
    return f"timm's {_code(str(network.timm))}{own}"


def _accuracy(metrics: BundleMetrics) -> str:
    retrained = metrics.accuracy_test is not None
    rows = [("validation", metrics.num_val, metrics.accuracy_val, "the model as trained during the search")]
    if metrics.accuracy_test is not None:
        rows.append(("test", metrics.num_test, metrics.accuracy_test, "this bundle's weights, retrained"))
    text = _table(
        ("split", "images", "accuracy", "standard error", "of"),
        [
            (split, count, f"{100 * share:.2f} %", f"{_standard_error(share, count)} points", what)
            for split, count, share, what in rows
        ],
    )
    if metrics.int8 is not None:
        one = metrics.int8
        text += (
            f"\n\n`{INT8_FILE}` has an arithmetic of its own and was scored itself, with this bundle's weights: "
            f"{100 * one.accuracy_val:.2f} % of {one.images} validation images; {100 * one.agreement:.1f} % of "
            "its classes are those of PyTorch, where the bits are simulated."
        )
    text += (
        f"\n\nAlways naming the most frequent class gives {100 * metrics.chance_accuracy:.2f} % on the validation "
        "images. The search chose this model by its validation accuracy, which is therefore optimistic."
    )
    if retrained:
        return text + " The test images were read once, after the search, to score the retrained weights."
    return text + " It was not retrained and has not seen the test images, so there is no unbiased figure."


def _cost(metrics: BundleMetrics, weights_file_mb: float) -> str:
    cost, reference = metrics.cost, metrics.eer.reference
    rows = [
        (title, shown.format(value / unit), shown.format(reference_value(reference, name) / unit),
         f"{100 * value / reference_value(reference, name):.3g} %")
        for title, name, shown, unit, value in (
            ("parameters (M)", "params", "{:.4g}", 1e6, cost.num_params),
            ("FLOPs (MACs) of one image (G)", "macs", "{:.4g}", 1e9, cost.num_macs),
            (f"bits, mean of weights ({cost.weight_bits:.3g}) and activations ({cost.activation_bits:.3g})",
             "bits", "{:.4g}", 1, cost.bits),
            ("size at the stored width (MB)", "size", "{:.4g}", 1, cost.size_mb),
        )
    ]  # fmt: skip
    text = _table(("", "this model", _cell(reference.name), "share"), rows)
    text += f"\n\n{_eer(metrics)} Tokens entering each block and leaving the last: {_numbers(cost.tokens)}."
    if cost.num_macs_p95 is not None:
        text += (
            " Tokens and FLOPs depend on the image: these are means over the images it was scored on, 95 % "
            f"of which need {cost.num_macs_p95 / 1e9:.4g} G or less. `{ONNX_FILE}` computes all tokens always."
        )
    elif cost.kind == "bounded":
        text += " Token counts depend on the image; FLOPs are the least that one can need."
    return text + f" `{WEIGHTS_FILE}` itself is {weights_file_mb:.3g} MB, because it holds float32 values."


def _eer(metrics: BundleMetrics) -> str:
    names = ", ".join(metrics.eer.metrics)
    against = f"against {_plain(metrics.eer.reference.name)} over {names}"
    if metrics.eer_pct is None:
        return f"Its efficient error rate (EER) {against} is unknown, because a metric in it was not measured."
    if metrics.eer.weights is None:
        return f"**EER {metrics.eer_pct:.2f} %** {against}: the mean of the shares, lower is better."
    weights = ", ".join(f"{weight:g}" for weight in metrics.eer.weights)
    return (
        f"**Weighted EER {metrics.eer_pct:.2f} %** {against} with weights {weights}; it is on "
        f"1/{len(metrics.eer.weights)} of the scale of the unweighted EER and must not be compared with it."
    )


def _latency(metrics: BundleMetrics) -> str:
    if not metrics.profiles:
        return "Not measured."
    header = (
        "target", "runtime", "device", "number format", "batch", "threads", "p50 (ms)", "p95 (ms)", "spread",
        "images/s", "peak memory (MB)", "calls (warm-up)", "training beside it", "computed on", "correct",
    )  # fmt: skip
    measured = [one for profile in metrics.profiles for one in (profile, *profile.others)]
    text = _table(header, [_profile_row(profile) for profile in measured])
    text += (
        "\n\nTime of one call of the network, without reading images; spread is the interquartile range over p50."
    )
    for profile in metrics.profiles:
        if profile.others:
            c = profile.conditions
            text += f" The fastest runtime on {c.target} is {c.runtime}."
        for one in (profile, *profile.others):
            if one.notes:
                text += f" {one.conditions.runtime} on {one.conditions.target}: {'; '.join(one.notes)}."
        for name, reason in profile.failed.items():
            text += f" {name} could not be measured on {profile.conditions.target}: {_plain(reason)}."
    if any(one.accuracy is not None for one in measured):
        text += (
            " Correct: of the validation images, by the runtime's own arithmetic, where that is not the trial's."
        )
    if metrics.accuracy_test is not None:
        text += " Measured with the weights of the search; the retrained ones run the same operations."
    return text


def _profile_row(p: Profile) -> Sequence[object]:
    c = p.conditions
    return (
        c.target, c.runtime, c.device, c.dtype, c.batch_size, c.threads, f"{p.latency_ms_p50:.3g}",
        f"{p.latency_ms_p95:.3g}", f"{100 * p.latency_ms_spread:.0f} %", f"{p.images_per_s:.4g}",
        f"{p.peak_memory_mb:.3g}", f"{c.repeats} ({c.warmup})", "yes" if c.contended else "no", c.inputs,
        "" if p.accuracy is None else f"{100 * p.accuracy:.2f} %",
    )  # fmt: skip


def _simulated(sparsity: Sparsity, metrics: BundleMetrics, weights_file_mb: float) -> str:
    paragraphs = []
    if metrics.simulated.any:
        paragraphs.append(_simulated_bits(metrics, weights_file_mb))
    if sparsity.mask != "none":
        paragraphs.append(_simulated_zeros(sparsity))
    return "\n\n".join(paragraphs) or "Nothing: weights and activations are float32 and run as such."


def _simulated_zeros(sparsity: Sparsity) -> str:
    which = "two of every four consecutive inputs (2:4)"
    if sparsity.mask == "unstructured":
        which = f"{100 * sparsity.zeros:.3g} % of the weights, in no pattern"
    return (
        f"Zeros: in the linear layers of the blocks, {which} are zero. FLOPs (MACs) above are those of the other "
        "weights, but PyTorch and ONNX Runtime multiply by zeros as by anything else: a stock runtime does not "
        "profit. Parameters, size, memory and latency are those of the dense layers."
    )


def _simulated_bits(metrics: BundleMetrics, weights_file_mb: float) -> str:
    simulated, parts = metrics.simulated, []
    if simulated.weight_bits:
        parts.append(f"weights at {_numbers(simulated.weight_bits)} bits")
    if simulated.activation_bits:
        parts.append(f"activations at {_numbers(simulated.activation_bits)} bits")
    text = (
        f"Quantisation: {' and '.join(parts)}. Values are rounded to these widths, so accuracy is that of the "
        f"quantised network, but PyTorch, and ONNX Runtime with `{ONNX_FILE}`, compute with them in floating "
        f"point. The widths count in bits, size ({metrics.cost.size_mb:.3g} MB; the file has "
        f"{weights_file_mb:.3g} MB) and EER, never in latency or memory: a runtime that executes them is needed "
        "to gain from them."
    )
    measured = [one for profile in metrics.profiles for one in (profile, *profile.others)]
    if any(one.conditions.dtype == "int8" for one in measured):
        text += (
            " The runtimes whose number format above is int8 do: there linear layers ran on 8-bit integers, and "
            "attention's own products in float32."
        )
    if metrics.int8 is not None:
        ranges = {
            "dynamic": "found anew for each batch, so that an answer depends a little on its neighbours",
            "qdq": "chosen beforehand on training images",
        }
        text += (
            f" `{INT8_FILE}` ({metrics.int8.file_size_mb:.3g} MB) is for such a runtime, with ranges of "
            f"activations {ranges[metrics.int8.kind]}; its input and output are those of `{ONNX_FILE}`."
        )
    return text


def _usage(metrics: BundleMetrics) -> str:
    check = metrics.onnx_check
    return (
        "Inside this folder, with an `image.png` beside this file and vitsearch installed:\n\n"
        f"```python\n{PYTHON_SNIPPET}```\n\n"
        "or in a shell: `vitsearch predict . image.png`.\n\n"
        "Without vitsearch, on any batch size; `images` is float32 (batch, channels, height, width):\n\n"
        f"```python\n{ONNX_SNIPPET}```\n\n"
        "vitsearch itself also obeys EXIF rotation, lays transparency on white and scales 16-bit grey.\n\n"
        f"`{ONNX_FILE}` was compared with PyTorch on {check.images} real images: logits differ by at most "
        f"{check.max_abs_diff:.2g} and by {check.mean_abs_diff:.2g} on average, where the largest is "
        f"{check.max_abs_logit:.3g}; {100 * check.agreement:.1f} % of the classes agree. Written with torch "
        f"{metrics.versions.torch}, timm {metrics.versions.timm}, onnx {metrics.versions.onnx}, "
        f"onnxruntime {metrics.versions.onnxruntime}."
    )


def _limits(metrics: BundleMetrics) -> str:
    lines = [
        "It always answers with one of its classes, also for an image that shows none of them.",
        "Probabilities are softmax outputs and are not calibrated.",
        "Accuracy holds for images drawn like the data set's; any other source needs a test of its own.",
        "Nobody has examined it for fairness, safety or resistance to deliberate manipulation.",
        "Latency holds for the conditions in the table; on other hardware measure again.",
    ]
    if metrics.onnx_check.agreement < 1:
        lines.append(
            "Quantisers and token reducers decide hard: in a tie, two runtimes can name different classes."
        )
    return "\n".join(f"- {line}" for line in lines)


def _standard_error(share: float, count: int) -> str:
    return f"{100 * math.sqrt(share * (1 - share) / count):.2f}" if count else "unknown"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    return _plain(str(value)).replace("|", "\\|")


def _plain(text: str) -> str:
    """One line without HTML; names come from folders and machines, not from us."""
    return " ".join(text.split()).replace("<", "&lt;")


def _code(text: str) -> str:
    """Text as inline code, whatever backticks it holds."""
    text = " ".join(text.split())
    runs = [len(run) for run in "".join(c if c == "`" else " " for c in text).split()]
    fence = "`" * (max(runs, default=0) + 1)
    padding = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return f"{fence}{padding}{text}{padding}{fence}"
